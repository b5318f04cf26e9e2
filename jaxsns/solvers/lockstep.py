"""Many small problems at once: the same Newton method, all lanes in step.

The lanes are the last, fast axis of every array, so that there is no cost for each
problem but its arithmetic. Two loops: over kernels, and over rounds on a kernel, in
which every lane at work sweeps, and those that need it take a Newton step first. A
lane that is done keeps its values while the others go on. Mathematics and constants
are those of `newton_steps` and `continuation`, but that scalings are multiplied rather
than their logarithms added, and that a refused step raises the shift rather than
being tried shorter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.linear import lanes
from jaxsns.numerics import (
    default_shift,
    far_below,
    largest_scaling,
    longest_step,
    safe_log,
    unit_roundoff,
)
from jaxsns.solvers import iteration, lane_problems
from jaxsns.solvers.continuation import epsilon_at
from jaxsns.solvers.lane_problems import (
    Batch,
    Kernels,
    Point,
    absorb,
    gain,
    select,
    weighted,
    when,
)
from jaxsns.solvers.newton_loop import IDLE
from jaxsns.solvers.newton_steps import GROW_MU, LEAST_MU
from jaxsns.status import Status, code

FIRST_MU = 0.1  # of the damping
PATIENCE = 24.0  # sweeps predicted that are made rather than a Newton step
BLOCK = 4  # sweeps in a round: looking at errors costs as much as a sweep or two
BLIND = 16  # sweeps at the beginning without a look: most easy problems are then done


class Work(NamedTuple):
    """Where the lanes stand on a kernel."""

    point: Point
    contraction: jax.Array  # [lanes]
    mu: jax.Array
    newton: jax.Array  # bool
    best: jax.Array  # least error so far
    idle: jax.Array  # int32 rounds without progress
    since: jax.Array  # int32 rounds on this kernel
    sweeps: jax.Array  # [lanes] int32
    newton_steps: jax.Array


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


def _sweeps(batch: Batch, matrix: jax.Array, point: Point, working, sweeps):
    """BLOCK Sinkhorn sweeps in the lanes at work, within their limits of steps."""
    # Rows without mass have sums 0, and 0 / 1 is as good a scaling as any.
    empty = (batch.a <= 0).astype(batch.a.dtype)
    left = batch.max_steps - sweeps

    def sweep(number, state):
        u, _, rows = state
        more = working & (number < left)
        u = jnp.where(more, u * (batch.a / (rows + empty)), u)
        v = batch.b / lanes.transpose_times(matrix, u)
        return u, v, u * lanes.times(matrix, v)

    # A loop that carries v: left to itself the compiler computes v for each row anew.
    state = point.u, point.v, point.rows
    u, _, _ = jax.lax.fori_loop(0, BLOCK, sweep, state)
    new = lane_problems.at(batch, matrix, u)
    done = sweeps + jnp.where(working, jnp.minimum(left, BLOCK), 0)
    return select(jnp.isfinite(new.error), new, point), done


def _newton(batch: Batch, matrix: jax.Array, s: Work) -> tuple[Work, jax.Array]:
    """One Newton step, kept where it gains; and where its gain is above rounding.

    A refused step counts among these: with the larger shift the next may be good.
    """
    old = s.point
    real, some = old.rows > 0, batch.b > 0
    root = jnp.where(real, jax.lax.rsqrt(jnp.where(real, old.rows, 1)), 0)
    right = jnp.where(some, jax.lax.rsqrt(jnp.where(some, batch.b, 1)), 0)
    q = (root * old.u)[:, None] * matrix * (right * old.v)[None]
    pin = jnp.where(real, jnp.sqrt(old.rows), 0) / jnp.sqrt(jnp.sum(old.rows, axis=0))
    shift = s.mu * old.error
    identity = jnp.eye(q.shape[0], dtype=q.dtype)[:, :, None]
    system = (1 + shift + default_shift(q.dtype)) * identity - lanes.gram(q)
    system = system + pin[:, None] * pin[None]
    rhs = root * (batch.a - old.rows)
    rhs = rhs - pin * jnp.sum(pin * rhs, axis=0)
    step = lanes.solve_definite(system, rhs)
    slope = jnp.sum(rhs * step, axis=0)
    curvature = slope - shift * jnp.sum(step * step, axis=0)
    dx = root * step
    dx = jnp.where(batch.a > 0, dx - weighted(batch.a, dx) / batch.total, 0)
    length = longest_step(safe_log(old.u), dx, axis=0)
    new = lane_problems.at(batch, matrix, old.u * jnp.exp(length * dx))
    predicted = length * slope - 0.5 * length**2 * curvature
    better = jnp.where(new.error < old.error, 1.0, -1.0).astype(dx.dtype)
    noise = 500 * unit_roundoff(dx.dtype) * batch.total
    rho = jnp.where(predicted > noise, gain(batch, old, new) / predicted, better)
    rho = jnp.where(jnp.isfinite(rho) & jnp.isfinite(new.error), rho, -1)
    lower = jnp.where(s.mu > LEAST_MU, s.mu / GROW_MU, 0)
    mu = jnp.where(rho > 0.75, lower, s.mu)
    mu = jnp.where(rho < 0.25, jnp.maximum(GROW_MU * s.mu, LEAST_MU), mu)
    kept = rho > 1e-4
    telling = predicted > noise
    return s._replace(point=select(kept, new, old), mu=mu), telling


def _at_work(batch: Batch, kernels: Kernels, s: Work) -> jax.Array:
    """[lanes] whether another round on this kernel is of use."""
    size = jnp.where(s.point.u > 0, s.point.u, 1)
    limit = jnp.exp(jnp.asarray(largest_scaling(size.dtype), size.dtype))
    small = (jnp.max(size, axis=0) <= limit) & (jnp.min(size, axis=0) >= 1 / limit)
    more = (s.point.error > kernels.target) & (s.sweeps < batch.max_steps)
    return more & small & (s.idle < IDLE)


def _round(batch: Batch, kernels: Kernels, running: jax.Array, s: Work) -> Work:
    """Newton steps where they pay, and a sweep, in all lanes that are at work."""
    working = running & _at_work(batch, kernels, s)
    error = s.point.error
    needed = jnp.log(kernels.target / error) / jnp.log(s.contraction)
    slow = ~((s.contraction < 1) & (needed <= batch.patience))
    newton = s.newton | ((s.since > 0) & slow & jnp.isfinite(batch.patience))
    asked = working & newton

    def step(both):
        s, _ = both
        moved, gained = _newton(batch, kernels.matrix, s)
        return select(asked, moved, s), gained & asked

    moved, gained = when(asked, step, (s, jnp.zeros_like(asked)))
    point, done = _sweeps(batch, kernels.matrix, moved.point, working, s.sweeps)
    number = jnp.maximum(done - s.sweeps, 1).astype(error.dtype)
    dead = newton & ~gained & (point.error > 0.9 * s.best)
    new = moved._replace(
        point=point,
        contraction=(point.error / error) ** (1 / number),
        newton=newton,
        best=jnp.minimum(s.best, point.error),
        idle=jnp.where(dead | ~jnp.isfinite(point.error), s.idle + 1, 0),
        since=s.since + 1,
        sweeps=done,
        newton_steps=s.newton_steps + newton.astype(jnp.int32),
    )
    return select(working, new, s)


def _judge(batch: Batch, s: State, g: jax.Array, settled: jax.Array) -> State:
    """Verdict on the potentials that would be returned, rounding included."""
    surplus = weighted(batch.a, s.f) - weighted(batch.b, g)
    shift = surplus / (batch.total + jnp.sum(batch.b, axis=0))
    f = jnp.where(batch.a > 0, s.f - shift, -jnp.inf)
    g = jnp.where(batch.b > 0, g + shift, -jnp.inf)
    low = far_below(f.dtype)
    exponent = jnp.maximum(f, low)[:, None] + jnp.maximum(g, low)[None] - batch.cost
    plan = jnp.exp(exponent / batch.epsilon)
    missing = jnp.sum(jnp.abs(jnp.sum(plan, axis=1) - batch.a), axis=0)
    missing += jnp.sum(jnp.abs(jnp.sum(plan, axis=0) - batch.b), axis=0)
    error = missing / batch.total
    status = iteration.verdict(
        error,
        batch.tolerance,
        s.sweeps,
        batch.max_steps,
        settled & (error > 0.5 * s.error),
    )
    return s._replace(f=f, g=g, error=error, status=status, passes=s.passes + 1)


def _level(batch: Batch, s: State) -> State:
    """One kernel for each running lane, rounds on it, and a verdict at the end."""
    running = s.status == code(Status.RUNNING)
    kernels, point = absorb(batch, s.f, s.level)
    work = Work(
        point=point,
        contraction=jnp.ones_like(point.error),
        mu=jnp.full_like(point.error, FIRST_MU),
        newton=jnp.zeros_like(running),
        best=point.error,
        idle=jnp.zeros_like(s.level),
        since=jnp.zeros_like(s.level),
        sweeps=s.sweeps,
        newton_steps=s.newton_steps,
    )
    work = jax.lax.while_loop(
        lambda w: jnp.any(running & _at_work(batch, kernels, w)),
        lambda w: _round(batch, kernels, running, w),
        work,
    )
    f = kernels.f + kernels.epsilon * safe_log(work.point.u)
    g = kernels.epsilon * safe_log(work.point.v) - kernels.top
    last = s.level >= batch.levels
    path = batch.epsilon, batch.first, batch.levels
    before, after = epsilon_at(*path, s.level - 1), epsilon_at(*path, s.level + 1)
    slope = (after - kernels.epsilon) / (kernels.epsilon - before)
    ahead = f + jnp.where(s.level > 0, slope, 0) * (f - s.last_f)
    new = s._replace(
        f=jnp.where(last, f, ahead),
        last_f=f,
        level=s.level + 1,
        sweeps=work.sweeps,
        newton_steps=work.newton_steps,
        passes=s.passes + 1,
    )
    settled = (work.point.error <= kernels.target) | (work.idle >= IDLE)
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


def blind(batch: Batch, start: State) -> State:
    """BLIND sweeps at the wanted epsilon, and a verdict at the end.

    Lanes that did not converge by it are RUNNING as before. Lanes that need a path,
    ask for Newton at once or may not make so many steps are left alone.
    """
    kernels, point = absorb(batch, start.f, batch.levels)
    empty = (batch.a <= 0).astype(batch.a.dtype)

    def sweep(_, state):
        u, _, rows = state
        u = u * (batch.a / (rows + empty))
        v = batch.b / lanes.transpose_times(kernels.matrix, u)
        return u, v, u * lanes.times(kernels.matrix, v)

    u, v, _ = jax.lax.fori_loop(0, BLIND, sweep, (point.u, point.v, point.rows))
    f = kernels.f + kernels.epsilon * safe_log(u)
    g = kernels.epsilon * safe_log(v) - kernels.top
    new = start._replace(f=f, sweeps=start.sweeps + BLIND, passes=start.passes + 1)
    # No error was aimed at, so it may lie as near to the tolerance as rounding of the
    # verdict is: up to 1.1e-6 passed for 1e-6, in 26 of 1e5 float32 lanes.
    strict = batch.tolerance - 2 * unit_roundoff(f.dtype)
    new = _judge(
        batch._replace(tolerance=strict), new, g, jnp.zeros_like(start.status, bool)
    )
    swept = (batch.levels == 0) & (batch.patience > 0) & (batch.max_steps >= BLIND)
    swept &= start.status == code(Status.RUNNING)
    status = jnp.where(new.status == code(Status.CONVERGED), new.status, start.status)
    return select(swept, new._replace(status=status), start)


def resume(
    batch: Batch, start: State, f: jax.Array, error: jax.Array, sweeps: jax.Array
) -> State:
    """Go on at potentials f [n, lanes] that sweeps left, where there were any."""
    good = (sweeps > 0) & jnp.isfinite(error)
    f = jnp.where(batch.a > 0, f, far_below(f.dtype))
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
    return jax.lax.while_loop(
        lambda s: jnp.any(s.status == code(Status.RUNNING)),
        lambda s: _level(batch, s),
        start,
    )
