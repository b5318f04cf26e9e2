"""Scales of the costs, by name: what epsilon or the costs may be relative to."""

import functools

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
from jaxsns.numerics import is_forbidden

SCALES = ("max", "mean", "median", "std")


# Compiled, since one by one its operations take longer to compile for a new shape.
@functools.partial(jax.jit, static_argnums=0)
def statistic(
    name: str, geometry: Dense | PointCloud | Grid, a: jax.Array, b: jax.Array
) -> jax.Array:
    """[] max, mean, median or standard deviation of the costs between real atoms.

    Atoms without mass do not count, so that padding changes no scale; neither do
    forbidden pairs.
    The median sorts n m numbers; the others are one pass.
    """
    if isinstance(geometry, Grid):
        if name not in grid_statistics.NAMED:
            raise ValueError(
                "the median of the costs of a Grid would need all of them; use 'max', "
                "'mean' or 'std'"
            )
        return grid_statistics.NAMED[name](geometry, a > 0, b > 0)
    formed = geometry.formed()
    if isinstance(formed, TransposedCost):
        formed, a, b = formed.transposed(), b, a
    if isinstance(formed, Streamed):
        return _streamed_statistic(name, formed, a, b)
    cost = formed.entries
    real = (a > 0)[:, None] & (b > 0)[None, :] & ~is_forbidden(cost)
    if name == "max":
        return jnp.max(jnp.where(real, cost, -jnp.inf))
    if name == "median":
        return jnp.nanmedian(jnp.where(real, cost, jnp.nan))
    count = jnp.sum(real, dtype=cost.dtype)
    mean = jnp.sum(jnp.where(real, cost, 0)) / count
    if name == "mean":
        return mean
    return _root(jnp.sum(jnp.where(real, (cost - mean) ** 2, 0)) / count)


def _root(variance: jax.Array) -> jax.Array:
    """[] square root with derivative 0 at 0; NaN, of costs that are NaN, stays."""
    zero = variance <= 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, variance)))


def _streamed_statistic(name: str, geometry: Streamed, a: jax.Array, b: jax.Array):
    if name == "median":
        raise ValueError(
            "the median of costs needs all of them stored; use 'mean', 'max' or 'std', "
            "or PointCloud(..., streamed=False)"
        )
    largest, mean, variance = geometry.moments(a > 0, b > 0)
    return {"max": largest, "mean": mean, "std": _root(variance)}[name]


def check_scale(name: str, value: str | None) -> None:
    """Raise ValueError unless it is None or the name of a scale."""
    if value is not None and value not in SCALES:
        raise ValueError(f"{name} must be None or one of {SCALES}; got {value!r}")
