"""Sinkhorn's iteration with safeguarded over-relaxation on a stabilised kernel."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import machine_epsilon
from jaxsns.problem import marginal, stabilised
from jaxsns.problem.marginal import MarginalConstraint
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.solvers.kernel_loop import KernelState, Limits, Method, Moved, sweep_record
from jaxsns.solvers.newton import newton
from jaxsns.solvers.sinkhorn.acceleration import best_omega

WINDOW = 20  # sweeps over which a contraction is measured [D12]
# [D12]
PLAIN_AFTER = 4  # windows without progress, after which over-relaxation is given up
IDLE_STEPS = (PLAIN_AFTER + 2) * WINDOW  # sweeps without progress: rounding [D10]


class Memory(NamedTuple):
    """What is known of the contraction."""

    omega: jax.Array  # [] relaxation factor in [1, 2)
    in_window: jax.Array  # [] int32 sweeps since the window began
    start_error: jax.Array  # [] at the beginning of the window
    best: jax.Array  # [] least error before the window
    idle: jax.Array  # [] int32 windows in a row without progress
    gain: jax.Array  # [] of the dual in the window, relative


def memory(dtype: jnp.dtype, before: Any) -> Memory:
    """Keep the factor from kernel to kernel; begin a new window."""
    one = jnp.ones((), dtype)
    zero, infinite = jnp.asarray(0, jnp.int32), jnp.full_like(one, jnp.inf)
    omega = one if before is None else before.omega
    return Memory(omega, zero, infinite, infinite, zero, 0 * one)


def relaxed(
    constraint: MarginalConstraint,
    x: jax.Array,
    sums: jax.Array,
    step: jax.Array,
    omega: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Change of a log scaling x, omega times a plain step, and the dual's gain.

    step: [n] that of a sweep, tau log(wanted / sums).
    Where equality is asked for the dual gains sum_i a_i omega l_i - r_i (exp(omega
    l_i) - 1) by it, l the logarithm; a factor under which it would fall is replaced
    by 1, under which it never does. Source: Lehmann et al., "A note on
    overrelaxation in the Sinkhorn algorithm" (2020), with the exact gain in place of
    their bound.
    """

    def gain(factor):
        plan = jnp.sum(sums * jnp.expm1(factor * step))
        return constraint.gain(x, x + factor * step) - plan

    factor = jnp.where(gain(omega) >= 0, omega, 1)
    return factor * step, gain(factor)


@jax.named_scope("sinkhorn")
def step(
    overrelaxation: bool, problem: KernelProblem, limits: Limits, s: KernelState
) -> Moved:
    """One relaxed sweep: rows, then columns."""
    del limits
    kernel, rows, columns = problem.kernel, problem.rows, problem.columns
    old, omega = s.iterate, s.memory.omega
    plain = stabilised.damped_step(rows, old.x, old.rows)
    step_x, gain_x = relaxed(rows, old.x, old.rows, plain, omega)
    x = old.x + step_x
    sums = jnp.exp(old.y) * kernel.transpose_times(jnp.exp(x))
    plain = stabilised.damped_step(columns, old.y, sums)
    step_y, gain_y = relaxed(columns, old.y, sums, plain, omega)
    y = old.y + step_y
    after = sums * jnp.exp(step_y)
    if rows.kappa is not None or columns.kappa is not None:
        constant = marginal.translation(rows, columns, x, y)
        x, y = x + constant, y - constant
    new_rows = stabilised.row_sums(problem, x, y)
    missing = jnp.sum(jnp.abs(after - columns.at(y)))
    missing += jnp.sum(jnp.abs(new_rows - rows.at(x)))
    error = stabilised.relative(problem, missing, x)
    gain = gain_x + gain_y
    kept = _measured(problem, s.memory, old.error, error, gain)
    if not overrelaxation:
        kept = kept._replace(omega=omega)
    counts = s.counts.plus(sweeps=1)
    return Moved(
        Iterate(x, y, new_rows, error), kept, gain, counts, sweep_record(error)
    )


def _measured(problem: KernelProblem, m: Memory, before, error, gain) -> Memory:
    """Read the contraction off a full window and choose the next factor by it.

    Over-relaxed errors rise and fall over several windows, plain ones only fall: after
    PLAIN_AFTER windows without progress the iteration is plain again.
    """
    start = jnp.where(m.in_window == 0, before, m.start_error)
    best = jnp.where(jnp.isinf(m.best), start, m.best)
    total = m.gain + gain / problem.mass
    full = m.in_window + 1 >= WINDOW
    noise = WINDOW * machine_epsilon(error.dtype)
    idle = jnp.where((error < best) | (total > noise), 0, m.idle + 1)
    decay = (error / start) ** (1 / WINDOW)
    omega = jnp.where(idle >= PLAIN_AFTER, 1, best_omega(m.omega, decay))
    return Memory(
        omega=jnp.where(full, omega, m.omega),
        in_window=jnp.where(full, 0, m.in_window + 1),
        start_error=start,
        best=jnp.where(full, jnp.minimum(error, best), best),
        idle=jnp.where(full, idle, m.idle),
        gain=jnp.where(full, 0, total),
    )


@functools.cache
def method(overrelaxation: bool = True) -> Method:
    """Sinkhorn's iteration, over-relaxed or plain."""
    steps = functools.partial(step, overrelaxation)
    return Method(newton.start, memory, steps, newton.repair, IDLE_STEPS, 1.0)
