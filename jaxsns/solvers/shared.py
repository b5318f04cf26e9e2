"""Lanes that sweep together, each with its masses: on one kernel, or each on its own.

A sweep of all lanes is two products for all of them at once: of matrices where the
kernel is one, which take a tenth of the time of as many products with vectors, and else
on every core, with one operation's overhead for all. It is done while lanes promise to
be there soon; those that are not are left to a solve of their own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.numerics import (
    far_below,
    goal,
    largest_scaling,
    matmul,
    rounding_of_entries,
    safe_log,
)
from jaxsns.solvers.iteration import NEGLIGIBLE

PATIENCE = 300.0  # sweeps on one kernel, predicted: about what a lane alone takes
BLOCK = 2  # sweeps between two looks at the errors
FIRST = 8  # sweeps before a prediction is believed


class Pairs(NamedTuple):
    """Masses in lanes, on the last axis."""

    a: jax.Array  # [n, lanes]
    b: jax.Array  # [m, lanes]
    tolerance: jax.Array  # [lanes]
    max_steps: jax.Array  # [lanes] int32
    active: jax.Array  # [lanes] bool: the others are nobody's concern


class Kernels(NamedTuple):
    """K = exp((base_i - C_ij - top_j) / epsilon), one for all lanes or for each."""

    matrix: jax.Array  # [n, m] or [lanes, n, m]
    base: jax.Array  # [n, 1] or [n, lanes] cost
    top: jax.Array  # [m, 1] or [m, lanes] cost
    epsilon: jax.Array  # [] or [lanes]

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [m, lanes] -> [n, lanes]."""
        if self.matrix.ndim == 2:
            return matmul(self.matrix, v)
        return matmul(self.matrix, v.T[:, :, None])[:, :, 0].T

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [n, lanes] -> [m, lanes]."""
        if self.matrix.ndim == 2:
            return matmul(self.matrix.T, u)
        return matmul(u.T[:, None, :], self.matrix)[:, 0, :].T


class Swept(NamedTuple):
    """What the sweeps left: potentials as they are returned, and their errors."""

    f: jax.Array  # [n, lanes] cost
    g: jax.Array  # [m, lanes] cost
    error: jax.Array  # [lanes]
    sure: jax.Array  # [lanes] bool: rounding of the kernel is no part of the error
    sweeps: jax.Array  # [lanes] int32


class _State(NamedTuple):
    u: jax.Array  # [n, lanes] of a lane at rest as it was then
    reach: jax.Array  # [n, lanes] K v for the columns that fit u, of lanes at work
    error: jax.Array  # [lanes]
    sweeps: jax.Array  # [lanes] int32
    live: jax.Array  # [lanes] bool: at work
    step: jax.Array  # [] int32


def _start(pairs: Pairs, kernels: Kernels, f: jax.Array | None):
    """[n, lanes] row scalings of potentials f; 1 where the kernel is too far off."""
    if f is None:
        return jnp.ones_like(pairs.a)
    real = pairs.a > 0
    x = jnp.where(real, (f - kernels.base) / kernels.epsilon, 0)
    x = jnp.where(real, x - jnp.sum(pairs.a * x, axis=0) / jnp.sum(pairs.a, axis=0), 0)
    fits = jnp.max(jnp.abs(x), axis=0) <= largest_scaling(x.dtype)
    return jnp.exp(jnp.where(fits, x, 0))


def _error(pairs: Pairs, u: jax.Array, reach: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(u * reach - pairs.a), axis=0) / jnp.sum(pairs.a, axis=0)


def _columns(pairs: Pairs, kernels: Kernels, u: jax.Array) -> jax.Array:
    """[m, lanes] column scalings that fit u."""
    return jnp.where(pairs.b > 0, pairs.b / kernels.transpose_times(u), 0)


def _sweeps(pairs: Pairs, kernels: Kernels, u: jax.Array, patience: float) -> _State:
    """Sweep each lane until it is there, or promises not to be so before long.

    A lane at rest keeps its scalings: what it gets does not depend on the others.
    """
    real = pairs.a > 0
    target = goal(pairs.tolerance)
    limit = jnp.exp(jnp.asarray(largest_scaling(u.dtype), u.dtype))

    def reached(u: jax.Array) -> jax.Array:
        return kernels.times(_columns(pairs, kernels, u))

    def sweep(_, state):
        u = jnp.where(real, pairs.a / state[1], 0)
        return u, reached(u)

    def block(s: _State) -> _State:
        u, reach = jax.lax.fori_loop(0, BLOCK, sweep, (s.u, s.reach))
        error = _error(pairs, u, reach)
        step = s.step + BLOCK
        left = BLOCK * jnp.log(target / error) / jnp.log(error / s.error)
        slow = ~((error < s.error) & (left <= patience - step.astype(left.dtype)))
        lost = ~((jnp.max(u, axis=0) < limit) & jnp.isfinite(error))
        lost |= jnp.min(jnp.where(real, u, 1), axis=0) < 1 / limit
        lost |= step + BLOCK > pairs.max_steps
        hopeless = lost | (slow & (step >= FIRST))
        return _State(
            u=jnp.where(s.live, u, s.u),
            reach=reach,
            error=jnp.where(s.live, error, s.error),
            sweeps=s.sweeps + jnp.where(s.live, BLOCK, 0),
            live=s.live & ~(error <= target) & ~hopeless,
            step=step,
        )

    reach = reached(u)
    error = _error(pairs, u, reach)
    live = pairs.active & ~(error <= target) & (pairs.max_steps >= BLOCK)
    none = jnp.zeros(error.shape, jnp.int32)
    start = _State(u, reach, error, none, live, jnp.asarray(0, jnp.int32))
    return jax.lax.while_loop(lambda s: jnp.any(s.live), block, start)


def _judged(pairs: Pairs, kernels: Kernels, u: jax.Array):
    """Centre the potentials and measure their error, their rounding included.

    On the kernel, after taking the potentials apart again: three products, no pass.
    """
    base, top, epsilon = kernels.base, kernels.top, kernels.epsilon
    low = far_below(base.dtype)
    real, some = pairs.a > 0, pairs.b > 0
    v = _columns(pairs, kernels, u)
    f = base + epsilon * safe_log(jnp.where(real, u, 1))
    g = epsilon * safe_log(jnp.where(some, v, 1)) - top
    rows = jnp.sum(jnp.where(real, pairs.a * f, 0), axis=0)
    surplus = rows - jnp.sum(jnp.where(some, pairs.b * g, 0), axis=0)
    shift = surplus / (jnp.sum(pairs.a, axis=0) + jnp.sum(pairs.b, axis=0))
    f, g = f - shift, g + shift
    x = jnp.where(real, (f + shift - base) / epsilon, low)
    y = jnp.where(some, (g - shift + top) / epsilon, low)
    u, v = jnp.exp(x), jnp.exp(y)
    error = _error(pairs, u, kernels.times(v))
    columns = v * kernels.transpose_times(u)
    error += jnp.sum(jnp.abs(columns - pairs.b), axis=0) / jnp.sum(pairs.a, axis=0)
    return jnp.where(real, f, -jnp.inf), jnp.where(some, g, -jnp.inf), error


def sweep(
    kernels: Kernels, pairs: Pairs, f: jax.Array | None, patience: float
) -> Swept:
    """Sweep lanes from row potentials f [n, lanes], or from those of the kernels."""
    end = _sweeps(pairs, kernels, _start(pairs, kernels, f), patience)
    f, g, error = _judged(pairs, kernels, end.u)
    reach = jnp.max(jnp.where(pairs.a > 0, jnp.abs(kernels.base), 0), axis=0)
    reach += jnp.max(jnp.where(pairs.b > 0, jnp.abs(kernels.top), 0), axis=0)
    noise = rounding_of_entries(reach / kernels.epsilon)
    sure = noise <= NEGLIGIBLE * pairs.tolerance
    return Swept(f, g, error, sure, end.sweeps)


def run(
    geometry: Dense, epsilon: jax.Array, pairs: Pairs, f: jax.Array | None
) -> Swept:
    """Sweep lanes with one cost and one epsilon, from f [n, lanes] or from zero.

    The kernel is built from the least cost of each row: every row and every column
    of it has an entry 1, so that no sum vanishes.
    """
    base = jnp.min(geometry.entries, axis=1)
    kernel, top = geometry.absorb(base, epsilon)
    kernels = Kernels(kernel.matrix, base[:, None], top[:, None], epsilon)
    return sweep(kernels, pairs, f, PATIENCE)
