"""The spanning tree of least reduced costs, its flow and its potentials.

If it is an optimal basis, its flow is an optimal plan and its potentials prove that.
Near the solution it nearly is one. Source: Prim (1957) for the tree; Dantzig,
"Linear programming and extensions" (1963), chapter 14, for basis trees.
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
    key: jax.Array  # [n + m] least reduced cost to the tree
    free: jax.Array  # [n + m] bool


@jax.named_scope("grow_tree")
def grow(cost: jax.Array, f: jax.Array, g: jax.Array) -> Tree:
    """Tree of least sum of reduced costs; one for each part that pairs connect.

    n + m steps, each of one row or column.
    """
    n, m = cost.shape
    turned = cost.T

    def add(k: jax.Array, s: _Growth) -> _Growth:
        node = jnp.argmin(jnp.where(s.free, s.key, jnp.inf)).astype(jnp.int32)
        # With no arc left, another part begins at any node of it.
        node = jnp.where(s.free[node], node, jnp.argmax(s.free).astype(jnp.int32))
        row, column = jnp.minimum(node, n - 1), jnp.clip(node - n, 0, m - 1)
        is_row = node < n
        to_columns = jnp.where(is_row, cost[row] - f[row] - g, jnp.inf)
        to_rows = jnp.where(is_row, jnp.inf, turned[column] - g[column] - f)
        new = jnp.concatenate([to_rows, to_columns])
        free = s.free.at[node].set(False)
        nearer = free & (new < s.key)
        parent = jnp.where(nearer, node, s.tree.parent)
        tree = Tree(s.tree.order.at[k].set(node), parent)
        return _Growth(tree, jnp.where(nearer, new, s.key), free)

    size = n + m
    tree = Tree(jnp.zeros((size,), jnp.int32), jnp.full((size,), size, jnp.int32))
    key = jnp.full((size,), jnp.inf, cost.dtype)
    start = _Growth(tree, key, jnp.ones((size,), bool))
    return control.fori_loop(jnp.int32(0), jnp.int32(size), add, start).tree


def arcs(tree: Tree, n: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Row, column, and whether there is one, of the arc of each node; all [n + m]."""
    size = tree.parent.size
    node = jnp.arange(size, dtype=jnp.int32)
    row = jnp.where(node < n, node, tree.parent)
    column = jnp.where(node < n, tree.parent, node) - n
    return row, column, tree.parent < size


def flow(tree: Tree, a: jax.Array, b: jax.Array) -> jax.Array:
    """[n + m] mass on the arc of each node, of either sign, with marginals a and b."""
    size = tree.parent.size

    def up(k: jax.Array, sums: jax.Array) -> jax.Array:
        node = tree.order[size - 1 - k]
        return sums.at[tree.parent[node]].add(sums[node], mode="drop")

    sums = control.fori_loop(
        jnp.int32(0), jnp.int32(size), up, jnp.concatenate([a, -b])
    )
    return jnp.where(jnp.arange(size) < a.size, sums, -sums)


def potentials(tree: Tree, cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) potentials for which all arcs of the tree are tight."""
    n, m = cost.shape
    row, column, real = arcs(tree, n)
    on_arc = cost[jnp.clip(row, 0, n - 1), jnp.clip(column, 0, m - 1)]

    def down(k: jax.Array, values: jax.Array) -> jax.Array:
        node = tree.order[k]
        above = values[jnp.minimum(tree.parent[node], n + m - 1)]
        return values.at[node].set(jnp.where(real[node], on_arc[node] - above, 0))

    start = jnp.zeros((n + m,), cost.dtype)
    values = control.fori_loop(jnp.int32(0), jnp.int32(n + m), down, start)
    return values[:n], values[n:]


def crossover(cost: jax.Array, a: jax.Array, b: jax.Array, f: jax.Array):
    """([n], [m], [n, m]) potentials and a flow on tight arcs, near those of f [n].

    The flow of the tree, less what is negative, less what is not tight.
    """
    f, g = costs.transformed(cost, f)
    tree = grow(cost, f, g)
    row, column, real = arcs(tree, a.size)
    mass = jnp.where(real, jnp.maximum(flow(tree, a, b), 0), 0)
    plan = jnp.zeros_like(cost).at[row, column].add(mass, mode="drop")
    f, g = costs.transformed(cost, potentials(tree, cost)[0])
    tight = costs.reduced(cost, f, g) <= costs.rounding(cost)
    return f, g, jnp.where(tight, plan, 0)
