"""Transport of masses to themselves at a symmetric cost: one potential, f = g.

Half of a Sinkhorn step each time, f <- (f + T f) / 2. With a kernel that is positive
semi-definite (squared distances, distances, l1) it contracts at least by 1/2 at every
epsilon, with one product with a matrix a step. Source: Feydy, Sejourne, Vialard,
Amari, Trouve, Peyre, "Interpolating between optimal transport and MMD using Sinkhorn
divergences" (2019), section 3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import finite_minus_inf, goal, largest_scaling
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.sinkhorn.overrelaxed import SinkhornOptions, SinkhornState

IDLE = 8  # steps without a new least error after which a kernel is left


class _Steps(NamedTuple):
    x: jax.Array
    rows: jax.Array
    error: jax.Array
    best: jax.Array
    idle: jax.Array
    step: jax.Array
    recorder: Recorder | None


def update(
    problem: Problem,
    options: SinkhornOptions,
    state: SinkhornState,
    last: ArrayLike = True,
) -> SinkhornState:
    """Absorb, step on the kernel until done or used up, and judge what came of it."""
    dtype = problem.dtype
    real = problem.a > 0
    # A half step in the log domain, where nothing over- or underflows.
    f = jnp.where(real, state.f, finite_minus_inf(dtype))
    absorbed = dual.absorb(problem, 0.5 * (f + dual.row_update(problem, f)))
    kernel, target = absorbed.kernel, absorbed.row_target
    aim = goal(jnp.asarray(options.tolerance, dtype))
    # The plan of f = g on a kernel that was scaled by columns.
    log_v = (absorbed.f + absorbed.top) / problem.epsilon
    log_v = jnp.where(real, log_v, finite_minus_inf(dtype))

    def semidual_pass(x: jax.Array):
        rows = dual.rows_for(kernel, x, x + log_v)
        wanted = target.at(x)
        # Rows and columns are missed alike.
        return rows, 2 * jnp.sum(jnp.abs(rows - wanted)) / jnp.sum(wanted)

    def step(s: _Steps) -> _Steps:
        ratio = target.at(s.x) / jnp.where(real, s.rows, 1)
        x = s.x + 0.5 * jnp.where(real, target.tau * jnp.log(ratio), 0)
        rows, error = semidual_pass(x)
        better = error < 0.99 * s.best
        return _Steps(
            x=x,
            rows=rows,
            error=error,
            best=jnp.minimum(error, s.best),
            idle=jnp.where(better, 0, s.idle + 1),
            step=s.step + 1,
            recorder=recorder.record_step(
                s.recorder, error, running=stepping(s), passes=state.counts.passes + 2
            ),
        )

    # The plan of f = g may have rows that are none, unlike one with exact columns:
    # such potentials take the next step in the log domain as well.
    zero = jnp.zeros_like(problem.a)
    rows, error = semidual_pass(zero)
    lost = jnp.any(real & ~((rows > 0) & jnp.isfinite(rows)))

    def stepping(s: _Steps) -> jax.Array:
        small = jnp.max(jnp.abs(s.x)) <= largest_scaling(dtype)
        more = (s.error > aim) & (s.step < options.max_steps) & (s.idle < IDLE)
        return more & small & ~lost

    record = recorder.at_epsilon(state.recorder, problem.epsilon, state.status)
    none = jnp.zeros_like(state.step)
    start = _Steps(zero, rows, error, error, none, state.step, record)
    end = jax.lax.while_loop(stepping, step, start)
    f = absorbed.f + problem.epsilon * end.x
    # NaN is not left to itself: such an update would come back for ever.
    settled = ~lost & (~(end.error > aim) | (end.idle >= IDLE))
    end = end._replace(step=end.step + lost.astype(jnp.int32))
    seen = absorbed, end.error
    f, g, error, status, passes = iteration.judge(
        problem, f, f, state.error, settled, last, end.step, options, *seen
    )
    counts = state.counts.plus(sweeps=end.step - state.step, passes=2 + passes)
    return SinkhornState(
        f, g, error, end.step, status, state.omega, counts, end.recorder
    )
