"""Scales of the costs, by name: what epsilon or the costs may be relative to."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import (
    Dense,
    Grid,
    PointCloud,
    Streamed,
    TransposedCost,
    grid_statistics,
)
from jaxsns.numerics import is_forbidden, machine_epsilon, root, unit_of

SCALES = ("max", "mean", "median", "std", "within")
ROUNDINGS = 8  # a scale below this many roundings of the mean cost is zero [D28]


class Moments(NamedTuple):
    """Statistics of the costs between atoms that count; all [] in units of cost."""

    max: jax.Array
    mean: jax.Array
    std: jax.Array


# Compiled, since one by one its operations take longer to compile for a new shape.
@functools.partial(jax.jit, static_argnums=0)
def statistic(name: str, geometry: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """[] a scale > 0 of the costs between real atoms, in units of cost.

    name: "max", "mean", "median" or "std" (standard deviation) of the costs, or
      "within", the spread of each cloud, which does not grow with the distance
      between them:
      PointCloud, Grid with coordinates: the mean cost of two points of x and the mean
        cost of two points of y, and the mean of the two. A point counts as a pair with
        itself.
      Dense: the standard deviation of what is left of the costs without the means of
        the rows and, after that, of the columns. Terms r_i + c_j of a cost, which
        change no plan, do not count (with forbidden pairs only r_i does not).
      Grid with matrices: ValueError, since costs within the clouds are not known.

    Atoms without mass do not count, so that padding changes no scale; neither do
    forbidden pairs. A scale of zero, up to rounding, means equal costs: the absolute
    value of their mean stands in for it, or 1 if that is zero too, as a constant
    without derivative. Every epsilon > 0 then gives the same plan, the product.
    The median sorts n m numbers; the others are one or two passes.
    """
    found = moments(geometry, a, b)
    if name == "within":
        scale = _within(geometry, a, b)
    elif name == "median":
        scale = _median(geometry, a, b)
    else:
        scale = getattr(found, name)
    mean = jnp.abs(found.mean)
    least = ROUNDINGS * machine_epsilon(geometry.dtype) * mean
    # NaN and negative scales stay what they are, and are refused as an epsilon.
    equal = (scale >= 0) & (scale <= least)
    instead = jax.lax.stop_gradient(jnp.where(mean > 0, mean, 1))
    return jnp.where(equal, instead, scale)


def _real(cost: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """[n, m] bool: pairs that count."""
    return (a > 0)[:, None] & (b > 0)[None, :] & ~is_forbidden(cost)


def moments(geometry: Any, a: jax.Array, b: jax.Array) -> Moments:
    """Largest, mean and standard deviation of the costs between real atoms."""
    if isinstance(geometry, Grid):
        named = grid_statistics.NAMED
        rows, columns = a > 0, b > 0
        return Moments(*[named[k](geometry, rows, columns) for k in Moments._fields])
    formed = geometry.formed()
    if isinstance(formed, TransposedCost):
        formed, a, b = formed.transposed(), b, a
    if isinstance(formed, Streamed):
        return Moments(*formed.moments(a > 0, b > 0))
    cost = formed.entries
    real = _real(cost, a, b)
    masked = jnp.where(real, cost, -jnp.inf).reshape(-1)
    # By place: the derivative of a maximum compares with what was rounded another
    # way, and is 0 / 0 where nothing is equal.
    largest = masked[jnp.argmax(jax.lax.stop_gradient(masked))]
    # Where no pair is permitted every scale is zero, and the solve says INFEASIBLE.
    count = jnp.maximum(jnp.sum(real, dtype=cost.dtype), 1)
    largest = jnp.where(jnp.any(real), largest, 0)
    # Twice, since a mean is rounded: equal costs have no deviation at all.
    origin = jax.lax.stop_gradient(jnp.sum(jnp.where(real, cost, 0)) / count)
    moved = jnp.where(real, cost - origin, 0)
    mean = jnp.sum(moved) / count
    unit = unit_of(moved)
    squares = jnp.sum(jnp.where(real, (moved - mean) / unit, 0) ** 2)
    return Moments(largest, origin + mean, unit * root(squares / count))


def _median(geometry: Any, a, b) -> jax.Array:
    if isinstance(geometry, Grid):
        raise ValueError(
            "the median of the costs of a Grid would need all of them; use 'max', "
            "'mean' or 'std'"
        )
    formed = geometry.formed()
    if isinstance(formed, Streamed | TransposedCost):
        raise ValueError(
            "the median of costs needs all of them stored; use 'mean', 'max' or 'std', "
            "or PointCloud(..., streamed=False)"
        )
    cost = formed.entries
    real = _real(cost, a, b)
    some = jnp.any(real)
    median = jnp.nanmedian(jnp.where(real | ~some, cost, jnp.nan))
    return jnp.where(some, median, 0)


def _within(geometry: Any, a, b) -> jax.Array:
    if isinstance(geometry, Dense):
        return _without_offsets(geometry, a, b)
    if isinstance(geometry, PointCloud):
        x, y = geometry.x, geometry.y
        # Devices share the rows of x alone; the points y are with each of them.
        other = dataclasses.replace(geometry, x=y, mesh=None, axis=None)
    elif geometry.matrices is None:
        x, y = geometry.x, geometry.x if geometry.y is None else geometry.y
        other = dataclasses.replace(geometry, x=y)
    else:
        raise ValueError(
            "the scale 'within' needs coordinates, and a Grid of matrices has none; "
            "use 'std', or Grid(x, y)"
        )
    one = dataclasses.replace(geometry, y=x)
    other = dataclasses.replace(other, y=y)
    return (moments(one, a, a).mean + moments(other, b, b).mean) / 2


def _without_offsets(geometry: Dense, a: jax.Array, b: jax.Array) -> jax.Array:
    """[] standard deviation of the costs after row and column means are taken out."""
    cost = geometry.entries
    real = _real(cost, a, b)
    rest = jnp.where(real, cost, 0)
    for axis in (1, 0):
        count = jnp.sum(real, axis=axis, keepdims=True, dtype=cost.dtype)
        mean = jnp.sum(rest, axis=axis, keepdims=True) / jnp.maximum(count, 1)
        rest = jnp.where(real, rest - mean, 0)
    unit = unit_of(rest)
    squares = jnp.sum((rest / unit) ** 2)
    return unit * root(squares / jnp.maximum(jnp.sum(real, dtype=cost.dtype), 1))


def check_scale(name: str, value: str | None) -> None:
    """Raise ValueError unless it is None or the name of a scale."""
    if value is not None and value not in SCALES:
        raise ValueError(f"{name} must be None or one of {SCALES}; got {value!r}")
