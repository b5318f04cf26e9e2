"""A fixed number of Sinkhorn sweeps, with nothing spent on knowing when to stop.

Sweeps run on an absorbed kernel as in `sinkhorn`, without over-relaxation. The error
that is returned is that of the rows before the last sweep, which the sweep needs
anyway: an upper bound, since a sweep never raises the L1 error of the marginals.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import largest_scaling
from jaxsns.problem import dual, kernel_verdict
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.sinkhorn.overrelaxed import SinkhornOptions, SinkhornState, relaxed
from jaxsns.status import Status, code


class _Sweeps(NamedTuple):
    x: jax.Array
    y: jax.Array
    bound: jax.Array
    step: jax.Array
    recorder: Recorder | None


def update(
    problem: Problem,
    options: SinkhornOptions,
    state: SinkhornState,
    last: ArrayLike = True,
) -> SinkhornState:
    """Absorb and sweep until all steps are made or the kernel is used up."""
    del last  # there is no path: every sweep counts
    absorbed = dual.absorb(problem, state.f)
    target = absorbed.row_target
    one = jnp.ones((), problem.dtype)

    def sweep(s: _Sweeps) -> _Sweeps:
        rows = dual.rows_for(absorbed.kernel, s.x, s.y)
        wanted = target.at(s.x)
        bound = jnp.sum(jnp.abs(rows - wanted)) / jnp.sum(wanted)
        x = s.x + relaxed(target, s.x, rows, one)[0]
        y = dual.columns_for(absorbed.kernel, absorbed.column_target, x)
        passes = state.counts.passes + 1
        noted = recorder.record_step(
            s.recorder, bound, running=sweeping(s), passes=passes
        )
        return _Sweeps(x, y, bound, s.step + 1, noted)

    def sweeping(s: _Sweeps) -> jax.Array:
        small = jnp.max(jnp.abs(s.x)) <= largest_scaling(problem.dtype)
        return small & (s.step < options.max_steps)

    record = recorder.at_epsilon(state.recorder, problem.epsilon, state.status)
    zero = jnp.zeros_like(problem.a)
    start = _Sweeps(zero, absorbed.y, state.error, state.step, record)
    end = jax.lax.while_loop(sweeping, sweep, start)
    f = absorbed.f + problem.epsilon * end.x
    g = problem.epsilon * end.y - absorbed.top
    # A scaling that is not finite ends it: more sweeps would only repeat it.
    healthy = jnp.all(jnp.isfinite(f))
    over = (end.step >= options.max_steps) | ~healthy
    centred_f, centred_g = dual.centre(problem, f, g)
    bound = end.bound + kernel_verdict.missed(problem, absorbed, f, g)
    bound = jnp.where(healthy, bound, jnp.nan)
    status = iteration.verdict(
        bound, options.tolerance, end.step, options.max_steps, jnp.asarray(False)
    )
    counts = state.counts.plus(sweeps=end.step - state.step, passes=1)
    return state._replace(
        f=jnp.where(over & (problem.a > 0), centred_f, jnp.where(over, -jnp.inf, f)),
        g=jnp.where(over & (problem.b > 0), centred_g, jnp.where(over, -jnp.inf, g)),
        error=bound,
        step=end.step,
        status=jnp.where(over, status, code(Status.RUNNING)),
        counts=counts,
        recorder=end.recorder,
    )
