"""A spanning tree of tight arcs, its flow and its potentials.

The tree is a basis of the linear programme. Its potentials are feasible, so it is an
optimal basis as soon as its flow is not negative. Near the solution it nearly is one.
Source: Dantzig, "Linear programming and extensions" (1963), chapter 14, for basis
trees; Prim (1957) for the order of growth.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact import costs


class Tree(NamedTuple):
    """Nodes are rows, and then columns, n + m of them."""

    order: jax.Array  # [n + m] int32 nodes, each after its parent
    parent: jax.Array  # [n + m] int32; n + m at a root


class _Growth(NamedTuple):
    tree: Tree
    key: jax.Array  # [n + m] least reduced cost to the tree, before its shift
    free: jax.Array  # [n + m] bool
    shift: jax.Array  # [] what the tree's f has risen by, and its g has fallen by
    joined: jax.Array  # [n + m] shift at which a node joined


@jax.named_scope("grow_tree")
def grow(
    cost: jax.Array, turned: jax.Array, f: jax.Array, g: jax.Array
) -> tuple[Tree, jax.Array, jax.Array]:
    """Tree whose arcs are tight for potentials near f and g, and those potentials.

    f and g must be feasible, and the new ones are. The node with the least reduced cost
    to the tree joins it. Before, the potentials of the tree move together until that
    arc is tight: up for a column that joins, down for a row. There is one tree for each
    part that pairs connect. n + m steps, each of one row or column. turned: cost.T.
    """
    n, m = cost.shape
    size = n + m
    way = jnp.where(jnp.arange(size) < n, 1, -1).astype(cost.dtype)
    none = jnp.finfo(cost.dtype).max

    def add(k: jax.Array, s: _Growth) -> _Growth:
        # With no arc left, another part begins at any node of it.
        distance = jnp.minimum(s.key + way * s.shift, none)
        node = costs.first_least(jnp.where(s.free, distance, jnp.inf))
        linked = distance[node] < none
        moved = jnp.where(linked, jnp.maximum(distance[node], 0), 0)
        shift = s.shift - way[node] * moved
        row, column = jnp.minimum(node, n - 1), jnp.clip(node - n, 0, m - 1)
        is_row = node < n
        to_columns = jnp.where(is_row, cost[row] - f[row] - g + shift, jnp.inf)
        to_rows = jnp.where(is_row, jnp.inf, turned[column] - g[column] - f - shift)
        new = jnp.concatenate([to_rows, to_columns])
        free = s.free.at[node].set(False)
        nearer = free & (new < s.key)
        parent = jnp.where(nearer, node, s.tree.parent)
        tree = Tree(s.tree.order.at[k].set(node), parent)
        key = jnp.where(nearer, new, s.key)
        return _Growth(tree, key, free, shift, s.joined.at[node].set(shift))

    tree = Tree(jnp.zeros((size,), jnp.int32), jnp.full((size,), size, jnp.int32))
    start = _Growth(
        tree,
        jnp.full((size,), jnp.inf, cost.dtype),
        jnp.ones((size,), bool),
        jnp.zeros((), cost.dtype),
        jnp.zeros((size,), cost.dtype),
    )
    end = control.fori_loop(jnp.int32(0), jnp.int32(size), add, start)
    since = end.shift - end.joined
    return end.tree, f + since[:n], g - since[n:]


def arcs(parent: jax.Array, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row, column, and whether there is one, of the arc of each node; all [n + m]."""
    size = parent.size
    node = jnp.arange(size, dtype=jnp.int32)
    row = jnp.where(node < n, node, parent)
    column = jnp.where(node < n, parent, node) - n
    return row, column, parent < size


def flow(tree: Tree, a: jax.Array, b: jax.Array) -> jax.Array:
    """[n + m] mass on the arc of each node, of either sign, with marginals a and b.

    A root has none.
    """
    size = tree.parent.size

    def up(k: jax.Array, sums: jax.Array) -> jax.Array:
        node = tree.order[size - 1 - k]
        return sums.at[tree.parent[node]].add(sums[node], mode="drop")

    sums = control.fori_loop(
        jnp.int32(0), jnp.int32(size), up, jnp.concatenate([a, -b])
    )
    signed = jnp.where(jnp.arange(size) < a.size, sums, -sums)
    return jnp.where(tree.parent < size, signed, 0)


def potentials(parent: jax.Array, cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) potentials for which all arcs of the tree are tight, 0 at the roots.

    A potential is the alternating sum of the costs on the way to the root. Sums of
    twice the length are formed from two of half.
    """
    n, m = cost.shape
    row, column, real = arcs(parent, n)
    on_arc = cost[jnp.clip(row, 0, n - 1), jnp.clip(column, 0, m - 1)]
    up = jnp.where(real, parent, jnp.arange(n + m, dtype=jnp.int32))
    single = jnp.where(real, on_arc, 0)
    # The second arc counts negative; after that pairs of arcs are added.
    values = single - single[up]

    def double(_, s):
        up, values = s
        return up[up], values + values[up]

    times = (n + m).bit_length()
    values = control.fori_loop(0, times, double, (up[up], values))[1]
    return values[:n], values[n:]
