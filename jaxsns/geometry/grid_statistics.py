"""Scales of the costs of a grid, axis by axis.

`rows` [n] and `columns` [m] say which atoms count: those with mass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxsns.numerics import matmul, root, unit_of

if TYPE_CHECKING:
    from jaxsns.geometry.grid import Grid


def _counts(grid: Grid, rows: jax.Array, columns: jax.Array, *axes: int):
    """Numbers of atoms that count, ([n_k, ..], [m_k, ..]) at coordinates of axes."""
    out = []
    for real, size in zip((rows, columns), grid.sizes, strict=True):
        others = tuple(j for j in range(len(size)) if j not in axes)
        out.append(jnp.sum(real.reshape(size), axis=others, dtype=grid.dtype))
    return out[0], out[1]


def spread(grid: Grid, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[] largest minus smallest cost within the boxes around all atoms that count."""
    total = jnp.zeros((), grid.dtype)
    for k, c in enumerate(grid.axes()):
        p, q = _counts(grid, rows, columns, k)
        real = (p > 0)[:, None] & (q > 0)[None, :]
        total = total + jnp.max(jnp.where(real, c, -jnp.inf))
        total = total - jnp.min(jnp.where(real, c, jnp.inf))
    return total


def largest(grid: Grid, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[] largest cost, exactly: O(n n_k) for one axis after the other."""
    most = jnp.where(rows, jnp.zeros((), grid.dtype), -jnp.inf)
    for c in reversed(grid.axes()):
        lines = most.reshape(-1, c.shape[0]).T
        sums = jax.lax.stop_gradient(lines[:, None] + c[:, :, None])
        # By place: the derivative of a maximum compares with what was rounded
        # another way, and is 0 / 0 where nothing is equal.
        where = jnp.argmax(sums, axis=0)
        own = jnp.arange(c.shape[1])[:, None]
        most = jnp.take_along_axis(lines, where, axis=0) + c[where, own]
    last = jnp.where(columns, most.reshape(-1), -jnp.inf)
    return last[jnp.argmax(jax.lax.stop_gradient(last))]


def _mean(weights: tuple[jax.Array, jax.Array], values: jax.Array) -> jax.Array:
    p, q = weights
    return jnp.sum(p * values) / jnp.sum(p) / jnp.sum(q)


def mean(grid: Grid, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[] mean of the costs."""
    return sum(_means(grid, rows, columns), jnp.zeros((), grid.dtype))


def _means(grid: Grid, rows: jax.Array, columns: jax.Array) -> list[jax.Array]:
    weights = [_counts(grid, rows, columns, k) for k in range(len(grid.axes()))]
    pairs = zip(weights, grid.axes(), strict=True)
    return [_mean(w, matmul(c, w[1])) for w, c in pairs]


def deviation(grid: Grid, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[] standard deviation of the costs: variances and covariances of the axes."""
    means = _means(grid, rows, columns)
    centred = []
    for k, (c, x) in enumerate(zip(grid.axes(), means, strict=True)):
        p, q = _counts(grid, rows, columns, k)
        # Padding may lie anywhere, and is in no unit of the others.
        counts = (p > 0)[:, None] & (q > 0)[None, :]
        centred.append(jnp.where(counts, c - x, 0))
    unit = unit_of(jnp.stack([jnp.max(jnp.abs(c)) for c in centred]))
    centred = [c / unit for c in centred]
    square = jnp.zeros((), grid.dtype)
    for k, c in enumerate(centred):
        w = _counts(grid, rows, columns, k)
        square = square + _mean(w, matmul(c**2, w[1]))
        for j in range(k):
            w = _counts(grid, rows, columns, j, k)
            both = matmul(matmul(centred[j], w[1]), c.T)
            square = square + 2 * _mean(w, both)
    return unit * root(square)


NAMED = {"max": largest, "mean": mean, "std": deviation}
