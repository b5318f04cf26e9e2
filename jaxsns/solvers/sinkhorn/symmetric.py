"""Transport of masses to themselves at a symmetric cost: one potential, f = g.

Half of a Sinkhorn step each time, f <- (f + T f) / 2. With a kernel that is positive
semi-definite (squared distances, distances, l1) it contracts at least by 1/2 at every
epsilon, with one product with a matrix a step. Source: Feydy, Sejourne, Vialard,
Amari, Trouve, Peyre, "Interpolating between optimal transport and MMD using Sinkhorn
divergences" (2019), section 3 [D34].
"""

import jax
import jax.numpy as jnp

from jaxsns.numerics import finite_minus_inf
from jaxsns.problem import dual, stabilised
from jaxsns.problem.problem import Problem
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.solvers.kernel_loop import KernelState, Limits, Method, Moved, sweep_record
from jaxsns.solvers.sinkhorn.fixed_length import memory

IDLE_STEPS = 8  # without progress, after which a kernel is left [D10]
PROGRESS = 0.99  # of the least error: less is progress [D10]


def _at(problem: KernelProblem, x: jax.Array) -> Iterate:
    """Iterate of f = g on a kernel that was scaled by columns."""
    log_v = (problem.f + problem.top) / problem.epsilon
    low = finite_minus_inf(x.dtype)
    y = jnp.where(problem.rows.real, x + log_v, low)
    rows = stabilised.row_sums(problem, x, y)
    # Rows and columns are missed alike.
    missing = 2 * jnp.sum(jnp.abs(rows - problem.rows.at(x)))
    return Iterate(x, y, rows, stabilised.relative(problem, missing, x))


def start(problem: Problem, kernel: KernelProblem) -> Iterate:
    """Iterate at x = 0."""
    del problem
    return _at(kernel, jnp.zeros_like(kernel.f))


def repair(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n] the next half step in the log domain, where nothing over- or underflows."""
    del g
    return 0.5 * (f + dual.row_update(problem, f))


def step(problem: KernelProblem, limits: Limits, s: KernelState) -> Moved:
    """Half a Sinkhorn step of the one potential."""
    del limits
    x = s.iterate.x
    change = stabilised.damped_step(problem.rows, x, s.iterate.rows)
    new = _at(problem, x + 0.5 * change)
    counts = s.counts.plus(sweeps=1)
    return Moved(new, None, jnp.zeros_like(new.error), counts, sweep_record(new.error))


METHOD = Method(start, memory, step, repair, IDLE_STEPS, PROGRESS, columns_fit=False)
