"""Tiny problems in lanes, and their plans on absorbed kernels.

Every array has the lanes as its last axis. What `dual` is for one problem, this is
for many at once: kernels from potentials, scalings with exact columns, dual gains.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear import lane_algebra
from jaxsns.numerics import (
    finite_minus_inf,
    inner_tolerance,
    is_forbidden,
    safe_log,
    scaled_log_sum,
    smallest_kept,
)
from jaxsns.problem import dual
from jaxsns.solvers.continuation import LEVEL_TOLERANCE, epsilon_at, number_of_levels

# A level costs lanes little: they begin further up than one problem by itself does.
FIRST_EPSILON, DIRECT = 0.1, 40.0  # see `continuation` [D18]


class Batch(NamedTuple):
    """Problems in lanes; everything else broadcasts against the last axis."""

    cost: jax.Array  # [n, m, lanes]
    a: jax.Array  # [n, lanes]
    b: jax.Array  # [m, lanes]
    epsilon: jax.Array  # [lanes]
    tolerance: jax.Array  # [lanes]
    max_steps: jax.Array  # [lanes] int32
    patience: jax.Array  # [lanes]
    levels: jax.Array  # [lanes] int32 of the path above the wanted epsilon
    first: jax.Array  # [lanes] epsilon at the start of the path
    rounding_share: jax.Array  # [lanes] see `solvers.options`

    @property
    def total(self) -> jax.Array:
        """[lanes] mass to be moved."""
        return jnp.sum(self.a, axis=0)


class Kernels(NamedTuple):
    """Kernels of all lanes, and the potentials and epsilon that they are made of."""

    f: jax.Array  # [n, lanes]
    top: jax.Array  # [m, lanes]
    matrix: jax.Array  # [n, m, lanes]
    epsilon: jax.Array  # [lanes]
    target: jax.Array  # [lanes] error to reach on the kernel


class Point(NamedTuple):
    """Scalings of the plan diag(u) K diag(v), whose columns are exact."""

    u: jax.Array  # [n, lanes]
    v: jax.Array  # [m, lanes]
    rows: jax.Array  # [n, lanes]
    error: jax.Array  # [lanes]


def spread(cost: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """[lanes] largest minus smallest cost between atoms with mass."""
    real = (a > 0)[:, None] & (b > 0)[None] & ~is_forbidden(cost)
    high = jnp.max(jnp.where(real, cost, -jnp.inf), axis=(0, 1))
    return high - jnp.min(jnp.where(real, cost, jnp.inf), axis=(0, 1))


def path_of(cost: jax.Array, a: jax.Array, b: jax.Array, epsilon: jax.Array):
    """([lanes] int32 levels above the last one, [lanes] first epsilon)."""
    first = FIRST_EPSILON * spread(cost, a, b)
    return number_of_levels(first / epsilon, DIRECT), first


def select(mask: jax.Array, new, old):
    """Lanes of `new` where the mask says so, for pytrees of arrays with lanes last."""
    return jax.tree.map(lambda u, v: jnp.where(mask, u, v), new, old)


def when(condition: jax.Array, function: Callable, x):
    """Apply a function if any lane asks for it."""
    return control.cond(jnp.any(condition), function, lambda x: x, x)


def at(batch: Batch, matrix: jax.Array, u: jax.Array) -> Point:
    """Point of row scalings u [n, lanes], with exact columns."""
    columns = lane_algebra.transpose_times(matrix, u)
    v = jnp.where(batch.b > 0, batch.b / columns, 0)
    rows = u * lane_algebra.times(matrix, v)
    error = jnp.sum(jnp.abs(rows - batch.a), axis=0) / batch.total
    # A scaling that underflowed would be a potential of -inf: no point to stand on.
    lost = jnp.any((u <= 0) & (batch.a > 0), axis=0)
    lost |= jnp.any((v <= 0) & (batch.b > 0), axis=0)
    return Point(u, v, rows, jnp.where(lost, jnp.inf, error))


def weighted(masses: jax.Array, potential: jax.Array) -> jax.Array:
    """[lanes] sum of mass times potential, where 0 * -inf is 0."""
    return jnp.sum(masses * jnp.where(masses > 0, potential, 0), axis=0)


def gain(batch: Batch, old: Point, new: Point) -> jax.Array:
    """[lanes] increase of the dual, in mass."""
    rows = weighted(batch.a, safe_log(new.u / old.u))
    safe = jnp.where(batch.b > 0, old.v, 1)
    return rows + weighted(batch.b, safe_log(new.v / safe))


def build(batch: Batch, f: jax.Array, epsilon: jax.Array):
    """Column maxima, kernel and point of potentials f, as `Dense.absorb` has them."""
    reduced = f[:, None] - batch.cost
    top = jnp.max(reduced, axis=0)
    matrix = jnp.exp((reduced - top[None]) / epsilon)
    matrix = jnp.where(matrix < smallest_kept(matrix.dtype), 0, matrix)
    return top, matrix, at(batch, matrix, jnp.ones_like(f))


def rounding_error(batch: Batch, f: jax.Array, g: jax.Array) -> jax.Array:
    """[lanes] error that rounding of the potentials may make, where it counts."""
    size = jnp.maximum(
        jnp.max(jnp.where(batch.a > 0, jnp.abs(f), 0), axis=0),
        jnp.max(jnp.where(batch.b > 0, jnp.abs(g), 0), axis=0),
    )
    return batch.rounding_share * dual.rounding_floor(size / batch.epsilon)


def absorb(batch: Batch, f: jax.Array, level: jax.Array):
    """Build the kernels of f; where a row vanishes, of one log-domain sweep of f.

    Returns the kernels, the points on them, and [lanes] bool where a row vanished.
    """
    low = finite_minus_inf(f.dtype)
    epsilon = epsilon_at(batch.epsilon, batch.first, batch.levels, level)
    f = jnp.where(batch.a > 0, f, low)
    built = f, *build(batch, f, epsilon)
    lost = jnp.any((built[-1].rows <= 0) & (batch.a > 0), axis=0)

    def repaired(built):
        f, top, _, point = built
        g = epsilon * safe_log(point.v) - top
        reduced = jnp.maximum(g, low)[None] - batch.cost
        soft = epsilon * safe_log(batch.a) - scaled_log_sum(reduced, epsilon, 1)
        f = jnp.where(lost & (batch.a > 0), soft, f)
        return select(lost, (f, *build(batch, f, epsilon)), built)

    f, top, matrix, point = when(lost, repaired, built)
    tolerance = jnp.maximum(batch.tolerance, rounding_error(batch, f, top))
    loose = jnp.maximum(tolerance, LEVEL_TOLERANCE)
    wanted = jnp.where(level >= batch.levels, tolerance, loose)
    return Kernels(f, top, matrix, epsilon, inner_tolerance(wanted)), point, lost
