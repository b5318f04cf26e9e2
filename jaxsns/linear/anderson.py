"""Anderson's acceleration of a fixed-point iteration, in a weighted norm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import machine_epsilon, matmul

DEPTH = 4  # differences that are kept [D23]


class Window(NamedTuple):
    """The last points and what the iteration would change there."""

    points: jax.Array  # [DEPTH, n] differences of consecutive points
    changes: jax.Array  # [DEPTH, n] differences of their changes
    last_point: jax.Array  # [n]
    last_change: jax.Array  # [n]
    seen: jax.Array  # [] int32 points


def empty(n: int, dtype: jnp.dtype) -> Window:
    """Nothing seen yet."""
    table, line = jnp.zeros((DEPTH, n), dtype), jnp.zeros((n,), dtype)
    return Window(table, table, line, line, jnp.asarray(0, jnp.int32))


def cleared(history: Window) -> Window:
    """Forget everything."""
    return jax.tree.map(jnp.zeros_like, history)


def mix(
    history: Window,
    point: jax.Array,
    change: jax.Array,
    weights: jax.Array,
    step: jax.Array | float = 1.0,
) -> tuple[Window, jax.Array]:
    """New history and next point [n], from a point and what the iteration changes.

    The combination of what was seen whose change is least in the norm of the weights,
    and its change made: type II of Fang and Saad (2009), regularised. O(n DEPTH^2).
    """
    known = history.seen > 0
    slot = jnp.maximum(history.seen - 1, 0) % DEPTH
    keep = lambda table, row: jnp.where(
        known, table.at[slot].set(row), jnp.zeros_like(table)
    )
    points = keep(history.points, point - history.last_point)
    changes = keep(history.changes, change - history.last_change)
    weighted = changes * weights[None, :]
    gram = matmul(weighted, changes.T)
    size = jnp.trace(gram)
    # Differences that are rounding must not be fitted: their weights would be huge.
    ridge = size * 1e3 * machine_epsilon(point.dtype)
    gram = gram + jnp.where(size > 0, ridge, 1) * jnp.eye(DEPTH, dtype=point.dtype)
    factor = jax.scipy.linalg.cho_factor(gram)
    share = jax.scipy.linalg.cho_solve(factor, matmul(weighted, change))
    new = point + step * change - matmul(share, points + step * changes)
    return Window(points, changes, point, change, history.seen + 1), new
