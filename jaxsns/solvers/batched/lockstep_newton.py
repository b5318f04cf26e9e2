"""Rounds of many small problems on their kernels, all lanes in step.

A round is a block of sweeps in every lane at work, after a Newton step in those that
need one. Lanes are the last axis. Mathematics and constants are those of
`newton_steps`, but that scalings are multiplied rather than their logarithms added,
and that a refused step raises the shift rather than being tried shorter.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear import lane_algebra
from jaxsns.numerics import (
    default_shift,
    largest_scaling,
    longest_step,
    machine_epsilon,
    safe_log,
)
from jaxsns.solvers.batched import lockstep_problem
from jaxsns.solvers.batched.lockstep_problem import (
    Batch,
    Kernels,
    Point,
    gain,
    select,
    weighted,
    when,
)
from jaxsns.solvers.newton import line_search
from jaxsns.solvers.newton.newton import GAIN_NOISE, IDLE_STEPS, PROGRESS

FIRST_MU = 0.1  # of the damping [D18]
BLOCK = 4  # sweeps in a round: looking at errors costs as much as a sweep or two [D18]


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


def _sweeps(batch: Batch, matrix: jax.Array, point: Point, working, sweeps):
    """BLOCK Sinkhorn sweeps in the lanes at work, within their limits of steps."""
    # Rows without mass have sums 0, and 0 / 1 is as good a scaling as any.
    empty = (batch.a <= 0).astype(batch.a.dtype)
    left = batch.max_steps - sweeps

    def sweep(number, state):
        u, _, rows = state
        more = working & (number < left)
        u = jnp.where(more, u * (batch.a / (rows + empty)), u)
        v = batch.b / lane_algebra.transpose_times(matrix, u)
        return u, v, u * lane_algebra.times(matrix, v)

    # A loop that carries v: left to itself the compiler computes v for each row anew.
    state = point.u, point.v, point.rows
    u, _, _ = control.fori_loop(0, BLOCK, sweep, state)
    new = lockstep_problem.at(batch, matrix, u)
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
    system = (1 + shift + default_shift(q.dtype)) * identity - lane_algebra.gram(q)
    system = system + pin[:, None] * pin[None]
    rhs = root * (batch.a - old.rows)
    rhs = rhs - pin * jnp.sum(pin * rhs, axis=0)
    step = lane_algebra.solve_definite(system, rhs)
    slope = jnp.sum(rhs * step, axis=0)
    curvature = slope - shift * jnp.sum(step * step, axis=0)
    dx = root * step
    dx = jnp.where(batch.a > 0, dx - weighted(batch.a, dx) / batch.total, 0)
    length = longest_step(safe_log(old.u), dx, axis=0)
    new = lockstep_problem.at(batch, matrix, old.u * jnp.exp(length * dx))
    predicted = length * slope - 0.5 * length**2 * curvature
    noise = GAIN_NOISE * machine_epsilon(dx.dtype) * batch.total
    errors = old.error, new.error
    ratio = line_search.gain_ratio(
        gain(batch, old, new), predicted, noise, errors, jnp.zeros_like(noise)
    )
    ratio = jnp.where(jnp.isfinite(ratio) & jnp.isfinite(new.error), ratio, -1)
    mu = line_search.updated_damping(s.mu, ratio)
    kept = ratio > line_search.ACCEPTED
    telling = predicted > noise
    return s._replace(point=select(kept, new, old), mu=mu), telling


def _at_work(batch: Batch, kernels: Kernels, s: Work) -> jax.Array:
    """[lanes] whether another round on this kernel is of use."""
    size = jnp.where(s.point.u > 0, s.point.u, 1)
    limit = jnp.exp(jnp.asarray(largest_scaling(size.dtype), size.dtype))
    small = (jnp.max(size, axis=0) <= limit) & (jnp.min(size, axis=0) >= 1 / limit)
    more = (s.point.error > kernels.target) & (s.sweeps < batch.max_steps)
    return more & small & (s.idle < IDLE_STEPS)


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
    dead = newton & ~gained & (point.error > PROGRESS * s.best)
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


def begin(point: Point, sweeps: jax.Array, newton_steps: jax.Array) -> Work:
    """Work before the first round on a kernel; the counts go on."""
    none = jnp.zeros_like(sweeps)
    return Work(
        point=point,
        contraction=jnp.ones_like(point.error),
        mu=jnp.full_like(point.error, FIRST_MU),
        newton=jnp.zeros_like(sweeps, bool),
        best=point.error,
        idle=none,
        since=none,
        sweeps=sweeps,
        newton_steps=newton_steps,
    )


def run(batch: Batch, kernels: Kernels, running: jax.Array, work: Work) -> Work:
    """Rounds until none is of use any more in the lanes that are running."""
    return control.while_loop(
        lambda w: jnp.any(running & _at_work(batch, kernels, w)),
        lambda w: _round(batch, kernels, running, w),
        work,
    )
