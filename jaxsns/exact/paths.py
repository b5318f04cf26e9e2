"""Shortest paths from the rows that have mass left, in the graph of reduced costs.

An arc from a row to a column costs C_ij - f_i - g_j >= 0. An arc back, where the plan
has mass, costs 0. Source: Dijkstra (1959); all nodes at the least distance go at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact import costs


class Forest(NamedTuple):
    """Distances, up to a bound, and the arcs by which they are reached."""

    rows: jax.Array  # [n] distance in units of cost; inf where there is no path
    columns: jax.Array  # [m]
    row_of: jax.Array  # [m] int32 the row before a column
    column_of: jax.Array  # [n] int32 the column before a row
    bound: jax.Array  # [] distances above it may be too long


class _Search(NamedTuple):
    forest: Forest
    rows: jax.Array  # [n] bool: improved, and not looked at since
    columns: jax.Array  # [m]
    low: jax.Array  # [] least distance among those


def _arcs(cost, f, distance, g, rounding) -> jax.Array:
    slack = costs.reduced(cost, f, g)
    return jnp.where(slack > rounding, slack, 0) + distance[:, None]


def _back(used, distance) -> jax.Array:
    return jnp.where(used, distance[:, None], jnp.inf)


def _next(forest: Forest, rows, columns, sinks: jax.Array) -> _Search:
    """Where the search stands: it ends at the mean distance of the sinks found."""
    waiting = jnp.min(jnp.where(rows, forest.rows, jnp.inf))
    low = jnp.minimum(waiting, jnp.min(jnp.where(columns, forest.columns, jnp.inf)))
    found = sinks & jnp.isfinite(forest.columns)
    number = jnp.maximum(jnp.sum(found, dtype=low.dtype), 1)
    mean = jnp.sum(jnp.where(found, forest.columns, 0)) / number
    bound = jnp.where(jnp.any(found), mean, jnp.inf)
    return _Search(forest._replace(bound=bound), rows, columns, low)


def _improved(old: jax.Array, before: jax.Array, new: costs.Least):
    better = new.value < old
    return (
        jnp.where(better, new.value, old),
        jnp.where(better, new.row, before),
        better,
    )


@jax.named_scope("shortest_paths")
def forest(
    cost: jax.Array,
    f: jax.Array,
    g: jax.Array,
    used: jax.Array,
    sources: jax.Array,
    sinks: jax.Array,
) -> Forest:
    """Shortest paths from rows `sources` [n] to about half of the columns `sinks` [m].

    used: [m, n] bool, where the plan has mass, transposed.
    """
    n, m = cost.shape
    rounding = costs.rounding(cost)
    far = lambda size: jnp.full((size,), jnp.inf, cost.dtype)

    def arcs(cost, f, distance):
        return _arcs(cost, f, distance, g, rounding)

    def step(s: _Search) -> _Search:
        tree = s.forest
        active = s.columns & (tree.columns <= s.low)
        new = costs.least(_back, active, used, tree.columns)
        rows, column_of, better = _improved(tree.rows, tree.column_of, new)
        waiting, columns_left = s.rows | better, s.columns & ~active
        active = waiting & (rows <= s.low)
        new = costs.least(arcs, active, cost, f, rows)
        columns, row_of, better = _improved(tree.columns, tree.row_of, new)
        tree = Forest(rows, columns, row_of, column_of, tree.bound)
        return _next(tree, waiting & ~active, columns_left | better, sinks)

    start = Forest(
        jnp.where(sources, 0, far(n)),
        far(m),
        jnp.full((m,), n, jnp.int32),
        jnp.full((n,), m, jnp.int32),
        jnp.asarray(jnp.inf, cost.dtype),
    )
    first = _next(start, sources, jnp.zeros((m,), bool), sinks)
    end = control.while_loop(lambda s: s.low < s.forest.bound, step, first)
    return end.forest
