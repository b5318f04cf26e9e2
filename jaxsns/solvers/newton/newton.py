"""Newton's method on the semi-dual, on a stabilised kernel.

Column marginals are kept exact (g is the soft minimum of f), so the unknown is the
row scaling x alone and the matrix is the Schur complement of `hessian.schur`. All of
it, directions, line search and Sinkhorn sweeps in between, costs products with one
kernel; exponentials of the matrix are needed only to build it, a few times a solve.

Globalisation: a Levenberg shift proportional to the error, an exact dual gain for
each trial step (`line_search`), and a Sinkhorn sweep after every step, which never
lowers the dual. Sources: Tang et al., ICLR 2024 (sweeps, then Newton); Tang and Qiu,
NeurIPS 2024, section on SSNS (shift mu |gradient| and ratio test).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import longest_step, machine_epsilon
from jaxsns.problem import dual, gauge, stabilised
from jaxsns.problem.problem import Problem
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.solvers.kernel_loop import (
    KernelState,
    Limits,
    Method,
    Moved,
    StepRecord,
    sweep_record,
)
from jaxsns.solvers.newton import direction, line_search

FIRST_SWEEPS = 3  # before the first Newton step on a new kernel [D11]
# [D08]
FIRST_DAMPING = 0.025  # shift over the error, at the first Newton step on a kernel
IDLE_STEPS = 4  # without progress, after which a kernel is left [D10]
PROGRESS = 0.9  # of the least error: less is progress [D10]
GAIN_NOISE = 500  # machine epsilons of the mass: promises below it are rounding [D09]


class Memory(NamedTuple):
    """What Newton's method keeps from step to step on a kernel."""

    damping: jax.Array  # [] shift over the error
    newton: jax.Array  # [] bool: Newton steps have begun


def start(problem: Problem, kernel: KernelProblem) -> Iterate:
    """Iterate at x = 0 with the columns that fit it."""
    del problem
    return stabilised.evaluate(kernel, jnp.zeros_like(kernel.f))


def memory(dtype: jnp.dtype, before: Any) -> Memory:
    """Begin anew on each kernel."""
    del before
    return Memory(jnp.asarray(FIRST_DAMPING, dtype), jnp.asarray(False))


def repair(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n] row potentials after a sweep in the log domain: no row vanishes."""
    del f
    real = problem.b > 0
    return dual.row_update(problem, jnp.where(real, g, dual.nothing(problem)))


@jax.named_scope("sweep")
def sweep(problem: KernelProblem, iterate: Iterate) -> Iterate:
    """One Sinkhorn sweep: rows, then columns."""
    change = stabilised.damped_step(problem.rows, iterate.x, iterate.rows)
    return stabilised.evaluate(problem, iterate.x + change)


def is_due(limits: Limits, s: KernelState) -> jax.Array:
    """[] bool: Newton has begun, or sweeps are predicted to need too long."""
    needed = jnp.log(limits.target / s.iterate.error) / jnp.log(s.contraction)
    slow = ~((s.contraction < 1) & (needed <= limits.patience))
    return s.memory.newton | (slow & (s.step - s.begun >= FIRST_SWEEPS))


@jax.named_scope("newton")
def _newton(
    solver: str, problem: KernelProblem, limits: Limits, s: KernelState, due: jax.Array
):
    """One direction and a line search; no move if no length is good."""
    old, mu = s.iterate, s.memory.damping
    # Under `vmap` all elements come here. The loops do not wait for those that need
    # nothing, or are done [D48].
    due = due & (old.error > limits.target) & (s.step < limits.max_steps)
    # Sweeps tell nothing of how good the quadratic model is.
    contraction = jnp.where(s.memory.newton, s.contraction, 0)
    shift = mu * old.error
    found = direction.find(
        solver, problem, old, shift, contraction, limits.target, due=due
    )
    total = jnp.maximum(jnp.sum(problem.rows.mass), problem.mass)
    mean = gauge.weighted(problem.rows.mass, found.dx) / total
    dx = found.dx - jnp.where(problem.gauge & problem.rows.real, mean, 0)
    noise = GAIN_NOISE * machine_epsilon(dx.dtype) * total

    def attempt(length):
        new = stabilised.evaluate(problem, old.x + length * dx)
        promised = length * found.slope - 0.5 * length**2 * found.curvature
        gain = stabilised.semidual_gain(problem, old, new)
        errors = old.error, new.error
        ratio = line_search.gain_ratio(gain, promised, noise, errors, limits.target)
        finite = jnp.isfinite(ratio) & jnp.isfinite(new.error)
        gain = jnp.where(finite, gain, -jnp.inf)
        return new, gain, jnp.where(finite, ratio, -1)

    length = longest_step(old.x, dx)
    room = lambda length: longest_step(old.x, length * dx) >= 1
    trial = line_search.search(attempt, room, length, old, due)
    accepted = trial.gain_ratio > line_search.ACCEPTED
    iterate = jax.tree.map(lambda u, v: jnp.where(accepted, u, v), trial.point, old)
    shortened = trial.length < length
    mu = line_search.updated_damping(mu, trial.gain_ratio, shortened)
    counts = s.counts.plus(newton_steps=1, linear_steps=found.products)
    return iterate, mu, counts, StepRecord(found.kind, shift)


def step(solver: str, problem: KernelProblem, limits: Limits, s: KernelState) -> Moved:
    """A Newton step if it is due, and a sweep."""
    due = is_due(limits, s)
    iterate, damping, counts, record = control.cond(
        due,
        lambda s: _newton(solver, problem, limits, s, due),
        lambda s: (s.iterate, s.memory.damping, s.counts, sweep_record(s.contraction)),
        s,
    )
    swept = sweep(problem, iterate)
    finite = jnp.isfinite(swept.error)
    new = jax.tree.map(lambda u, v: jnp.where(finite, u, v), swept, iterate)
    gain = stabilised.semidual_gain(problem, s.iterate, new)
    return Moved(new, Memory(damping, due), gain, counts.plus(sweeps=1), record)


@functools.cache
def method(solver: str = "auto") -> Method:
    """Newton's method with a linear solver; the same object for the same name."""
    steps = functools.partial(step, solver)
    return Method(start, memory, steps, repair, IDLE_STEPS, PROGRESS)
