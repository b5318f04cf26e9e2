"""Many pairs of masses on one cost: all of them sweep on one kernel.

A sweep of all lanes is two products of matrices, which take a tenth of the time of
as many products with vectors. It is done while the slowest lane promises to be there
soon; lanes that are not are left to a solve of their own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.numerics import far_below, goal, largest_scaling, matmul, safe_log

PATIENCE = 300.0  # sweeps, predicted: about what a lane alone takes
BLOCK = 2  # sweeps between two looks at the errors
FIRST = 8  # sweeps before a prediction is believed


class Pairs(NamedTuple):
    """Masses in lanes, on the last axis."""

    a: jax.Array  # [n, lanes]
    b: jax.Array  # [m, lanes]
    tolerance: jax.Array  # [lanes]
    max_steps: jax.Array  # [lanes] int32
    active: jax.Array  # [lanes] bool: the others are nobody's concern


class Swept(NamedTuple):
    """What the sweeps left: potentials as they are returned, and their errors."""

    f: jax.Array  # [n, lanes] cost
    g: jax.Array  # [m, lanes] cost
    error: jax.Array  # [lanes]
    sweeps: jax.Array  # [] int32


class _State(NamedTuple):
    u: jax.Array  # [n, lanes]
    v: jax.Array  # [m, lanes]
    reach: jax.Array  # [n, lanes] K v
    error: jax.Array  # [lanes]
    step: jax.Array  # [] int32
    more: jax.Array  # [] bool


def _start(pairs: Pairs, f: jax.Array | None, base: jax.Array, epsilon: jax.Array):
    """[n, lanes] row scalings of potentials f; 1 where the kernel is too far off."""
    if f is None:
        return jnp.ones_like(pairs.a)
    real = pairs.a > 0
    x = jnp.where(real, (f - base[:, None]) / epsilon, 0)
    x = jnp.where(real, x - jnp.sum(pairs.a * x, axis=0) / jnp.sum(pairs.a, axis=0), 0)
    fits = jnp.max(jnp.abs(x), axis=0) <= largest_scaling(x.dtype)
    return jnp.exp(jnp.where(fits, x, 0))


def _error(pairs: Pairs, u: jax.Array, reach: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(u * reach - pairs.a), axis=0) / jnp.sum(pairs.a, axis=0)


def _sweeps(pairs: Pairs, kernel: DenseKernel, u: jax.Array) -> _State:
    real, some = pairs.a > 0, pairs.b > 0
    target = goal(pairs.tolerance)
    limit = jnp.exp(jnp.asarray(largest_scaling(u.dtype), u.dtype))

    def columns(u):
        v = jnp.where(some, pairs.b / matmul(kernel.matrix.T, u), 0)
        return v, matmul(kernel.matrix, v)

    def sweep(_, state):
        _, _, reach = state
        u = jnp.where(real, pairs.a / reach, 0)
        return u, *columns(u)

    def block(s: _State) -> _State:
        u, v, reach = jax.lax.fori_loop(0, BLOCK, sweep, (s.u, s.v, s.reach))
        error = _error(pairs, u, reach)
        step = s.step + BLOCK
        left = jnp.log(target / error) / jnp.log(error / s.error)
        slow = ~(
            (error < s.error) & (left * BLOCK <= PATIENCE - step.astype(left.dtype))
        )
        lost = ~((jnp.max(u, axis=0) < limit) & jnp.isfinite(error))
        lost |= jnp.min(jnp.where(real, u, 1), axis=0) < 1 / limit
        lost |= step + BLOCK > pairs.max_steps
        missing = pairs.active & ~(error <= target)
        hopeless = missing & (lost | (slow & (step >= FIRST)))
        more = jnp.any(missing & ~hopeless)
        return _State(u, v, reach, error, step, more)

    v, reach = columns(u)
    error = _error(pairs, u, reach)
    missing = pairs.active & ~(error <= target)
    more = jnp.any(missing & (pairs.max_steps >= BLOCK))
    start = _State(u, v, reach, error, jnp.asarray(0, jnp.int32), more)
    return jax.lax.while_loop(lambda s: s.more, block, start)


def _judged(pairs: Pairs, kernel: DenseKernel, base, top, epsilon, end: _State):
    """Centre the potentials and measure their error, their rounding included.

    On the kernel, after taking the potentials apart again: two products, no pass.
    """
    low = far_below(base.dtype)
    real, some = pairs.a > 0, pairs.b > 0
    f = base[:, None] + epsilon * safe_log(jnp.where(real, end.u, 1))
    g = epsilon * safe_log(jnp.where(some, end.v, 1)) - top[:, None]
    rows = jnp.sum(jnp.where(real, pairs.a * f, 0), axis=0)
    surplus = rows - jnp.sum(jnp.where(some, pairs.b * g, 0), axis=0)
    shift = surplus / (jnp.sum(pairs.a, axis=0) + jnp.sum(pairs.b, axis=0))
    f, g = f - shift, g + shift
    x = jnp.where(real, (f + shift - base[:, None]) / epsilon, low)
    y = jnp.where(some, (g - shift + top[:, None]) / epsilon, low)
    u, v = jnp.exp(x), jnp.exp(y)
    error = _error(pairs, u, matmul(kernel.matrix, v))
    columns = v * matmul(kernel.matrix.T, u)
    error += jnp.sum(jnp.abs(columns - pairs.b), axis=0) / jnp.sum(pairs.a, axis=0)
    return jnp.where(real, f, -jnp.inf), jnp.where(some, g, -jnp.inf), error


def run(
    geometry: Dense, epsilon: jax.Array, pairs: Pairs, f: jax.Array | None
) -> Swept:
    """Sweep all lanes at one epsilon, from row potentials f [n, lanes] or from zero.

    The kernel is built from the least cost of each row: every row and every column
    of it has an entry 1, so that no sum vanishes.
    """
    base = jnp.min(geometry.entries, axis=1)
    kernel, top = geometry.absorb(base, epsilon)
    end = _sweeps(pairs, kernel, _start(pairs, f, base, epsilon))
    return Swept(*_judged(pairs, kernel, base, top, epsilon, end), end.step)
