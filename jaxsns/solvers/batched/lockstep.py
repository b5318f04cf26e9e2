"""Many small problems at once: the same Newton method, all lanes in step.

The lanes are the last, fast axis of every array, so that there is no cost for each
problem but its arithmetic. Two loops: over kernels, as in `continuation`, and over
rounds on a kernel (`lane_rounds`). A lane that is done keeps its values while the
others go on.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear import lane_algebra
from jaxsns.numerics import (
    dual_slack,
    finite_minus_inf,
    largest_scaling,
    machine_epsilon,
    safe_log,
)
from jaxsns.solvers import continuation
from jaxsns.solvers.batched import lockstep_newton, pallas_sweeps
from jaxsns.solvers.batched.lockstep_problem import (
    Batch,
    absorb,
    rounding_error,
    select,
    weighted,
    when,
)
from jaxsns.solvers.continuation import epsilon_at
from jaxsns.solvers.loop import status_at
from jaxsns.solvers.newton.newton import IDLE_STEPS
from jaxsns.status import Status, code

# [D18]
FIRST_SWEEPS = (
    16  # sweeps at the beginning without a look: most easy problems are then done
)


class State(NamedTuple):
    """Between kernels; in the end f, g, error, status and the counts are the answer."""

    f: jax.Array  # [n, lanes]
    g: jax.Array  # [m, lanes]
    last_f: jax.Array  # [n, lanes] at the end of the level before
    level: jax.Array  # [lanes] int32
    error: jax.Array  # [lanes] of f and g, by the last verdict
    status: jax.Array  # [lanes] int32
    sweeps: jax.Array
    newton_steps: jax.Array
    passes: jax.Array


def _judge(batch: Batch, s: State, g: jax.Array, settled: jax.Array) -> State:
    """Verdict on the potentials that would be returned, rounding included."""
    f, mean = s.f, 0.5 * batch.total + 0.5 * jnp.sum(batch.b, axis=0)
    for _ in range(2):  # see `gauge.centre`
        shift = 0.5 * (weighted(batch.a / mean, f) - weighted(batch.b / mean, g))
        f, g = f - shift, g + shift
    f = jnp.where(batch.a > 0, f, -jnp.inf)
    g = jnp.where(batch.b > 0, g, -jnp.inf)
    low = finite_minus_inf(f.dtype)
    exponent = dual_slack(
        jnp.maximum(f, low)[:, None], jnp.maximum(g, low)[None], batch.cost
    )
    plan = jnp.exp(exponent / batch.epsilon)
    missing = jnp.sum(jnp.abs(jnp.sum(plan, axis=1) - batch.a), axis=0)
    missing += jnp.sum(jnp.abs(jnp.sum(plan, axis=0) - batch.b), axis=0)
    error = missing / batch.total
    status = status_at(
        error,
        jnp.maximum(batch.tolerance, rounding_error(batch, f, g)),
        s.sweeps,
        batch.max_steps,
        settled & (error > 0.5 * s.error),
    )
    return s._replace(f=f, g=g, error=error, status=status, passes=s.passes + 1)


def _level(batch: Batch, s: State) -> State:
    """One kernel for each running lane, rounds on it, and a verdict at the end."""
    running = s.status == code(Status.RUNNING)
    kernels, point, _ = absorb(batch, s.f, s.level)
    work = lockstep_newton.begin(point, s.sweeps, s.newton_steps)
    work = lockstep_newton.run(batch, kernels, running, work)
    f = kernels.f + kernels.epsilon * safe_log(work.point.u)
    g = kernels.epsilon * safe_log(work.point.v) - kernels.top
    last = s.level >= batch.levels
    path = batch.epsilon, batch.first, batch.levels
    before, after = epsilon_at(*path, s.level - 1), epsilon_at(*path, s.level + 1)
    slope = continuation.slope(before, kernels.epsilon, after)
    ahead = f + jnp.where(s.level > 0, slope, 0) * (f - s.last_f)
    new = s._replace(
        f=jnp.where(last, f, ahead),
        last_f=f,
        level=s.level + 1,
        sweeps=work.sweeps,
        newton_steps=work.newton_steps,
        passes=s.passes + 1,
    )
    settled = (work.point.error <= kernels.target) | (work.idle >= IDLE_STEPS)
    asked = running & last
    judged = when(
        asked,
        lambda s: select(asked, _judge(batch, s, g, settled), s),
        new,
    )
    return select(running, judged, s)


def begin(batch: Batch, f: jax.Array, status: jax.Array) -> State:
    """State at row potentials f [n, lanes]; lanes with another status stay as is."""
    count = jnp.zeros_like(status)
    return State(
        f=f,
        g=jnp.zeros_like(batch.b),
        last_f=f,
        level=count,
        error=jnp.full_like(batch.epsilon, jnp.inf),
        status=status,
        sweeps=count,
        newton_steps=count,
        passes=count,
    )


def fixed_sweeps(batch: Batch, start: State, pallas: bool = False) -> State:
    """FIRST_SWEEPS sweeps at the wanted epsilon, and a verdict at the end.

    Lanes that did not converge by it are RUNNING as before. Lanes that need a path,
    ask for Newton at once or may not make so many steps are left alone. `pallas`: see
    `Dense`.
    """
    kernels, point, _ = absorb(batch, start.f, batch.levels)
    empty = (batch.a <= 0).astype(batch.a.dtype)

    def sweep(_, state):
        u, _, rows = state
        u = u * (batch.a / (rows + empty))
        v = batch.b / lane_algebra.transpose_times(kernels.matrix, u)
        return u, v, u * lane_algebra.times(kernels.matrix, v)

    if pallas and pallas_sweeps.fits(*kernels.matrix.shape[:2]):
        parts = batch.a, batch.b, kernels.matrix, point.u, point.rows
        u, v = pallas_sweeps.sweeps(FIRST_SWEEPS, *parts)
    else:
        begun = point.u, point.v, point.rows
        u, v, _ = control.fori_loop(0, FIRST_SWEEPS, sweep, begun)
    f = kernels.f + kernels.epsilon * safe_log(u)
    g = kernels.epsilon * safe_log(v) - kernels.top
    new = start._replace(
        f=f, sweeps=start.sweeps + FIRST_SWEEPS, passes=start.passes + 1
    )
    # No error was aimed at, so it may lie as near to the tolerance as rounding of the
    # verdict is: up to 1.1e-6 passed for 1e-6, in 26 of 1e5 float32 lanes.
    strict = batch.tolerance - 2 * machine_epsilon(f.dtype)
    new = _judge(
        batch._replace(tolerance=strict), new, g, jnp.zeros_like(start.status, bool)
    )
    swept = (
        (batch.levels == 0) & (batch.patience > 0) & (batch.max_steps >= FIRST_SWEEPS)
    )
    swept &= start.status == code(Status.RUNNING)
    status = jnp.where(new.status == code(Status.CONVERGED), new.status, start.status)
    return select(swept, new._replace(status=status), start)


def resume(
    batch: Batch, start: State, f: jax.Array, error: jax.Array, sweeps: jax.Array
) -> State:
    """Go on at potentials f [n, lanes] that sweeps left, where there were any."""
    good = (sweeps > 0) & jnp.isfinite(error)
    f = jnp.where(batch.a > 0, f, finite_minus_inf(f.dtype))
    f = jnp.where(good & jnp.all(jnp.isfinite(f), axis=0), f, start.f)
    return start._replace(
        f=f,
        last_f=f,
        sweeps=sweeps,
        error=error,
        passes=2 * (sweeps > 0).astype(jnp.int32),
    )


def run(batch: Batch, start: State) -> State:
    """Solve all lanes that are RUNNING."""
    return control.while_loop(
        lambda s: jnp.any(s.status == code(Status.RUNNING)),
        lambda s: _level(batch, s),
        start,
    )


def fixed_number(batch: Batch, start: State) -> State:
    """Make exactly `max_steps` plain sweeps: columns, then rows, which end exact."""

    def on_kernels(s: State) -> State:
        running = s.status == code(Status.RUNNING)
        kernels, point, repaired = absorb(batch, s.f, batch.levels)
        limit = largest_scaling(s.f.dtype)
        # A row that vanished was repaired by a sweep in the log domain, which counts.
        begun = s.sweeps + (running & repaired).astype(jnp.int32)

        def at_work(u, sweeps):
            size = jnp.max(jnp.abs(safe_log(jnp.where(u > 0, u, 1))), axis=0)
            return running & (sweeps < batch.max_steps) & (size <= limit)

        def sweep(state):
            u, v, sweeps = state
            work = at_work(u, sweeps)
            new_v = jnp.where(
                batch.b > 0,
                batch.b / lane_algebra.transpose_times(kernels.matrix, u),
                0,
            )
            reach = lane_algebra.times(kernels.matrix, new_v)
            new_u = jnp.where(batch.a > 0, batch.a / reach, 0)
            u, v = select(work, (new_u, new_v), (u, v))
            return u, v, sweeps + work.astype(jnp.int32)

        u, v, sweeps = control.while_loop(
            lambda state: jnp.any(at_work(state[0], state[2])),
            sweep,
            (point.u, point.v, begun),
        )
        f = kernels.f + kernels.epsilon * safe_log(u)
        g = kernels.epsilon * safe_log(v) - kernels.top
        # Numbers that are not finite end it: more sweeps would only repeat them.
        broken = ~jnp.all(jnp.isfinite(jnp.where(batch.a > 0, f, 0)), axis=0)
        sweeps = jnp.where(broken, batch.max_steps, sweeps)
        new = s._replace(f=f, sweeps=sweeps, passes=s.passes + 1)
        ended = running & (sweeps >= batch.max_steps)
        done = _judge(batch, new, g, jnp.zeros_like(ended))
        return select(ended, done, select(running, new, s))

    return control.while_loop(
        lambda s: jnp.any(s.status == code(Status.RUNNING)), on_kernels, start
    )
