"""The dual network simplex method: from a tree of tight arcs to an optimal basis.

The arc with the most negative flow leaves the tree, which falls into two sides. The
potentials of the side that has too much mass rise until an arc to the other side is
tight. That arc enters the tree. Potentials stay feasible throughout. Source: Ahuja,
Magnanti, Orlin, "Network flows" (1993), section 11.6 and exercise 11.37.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact import costs
from jaxsns.exact import tree as trees


class Basis(NamedTuple):
    """A tree of tight arcs, with feasible potentials and a flow of either sign."""

    parent: jax.Array  # [n + m] int32; n + m at a root
    flow: jax.Array  # [n + m] mass on the arc of each node
    f: jax.Array  # [n] in units of cost
    g: jax.Array  # [m]
    pivots: jax.Array  # [] int32
    stuck: jax.Array  # [] bool: no arc joins the two sides


class _Entering(NamedTuple):
    row: jax.Array  # [] int32
    column: jax.Array  # [] int32
    slack: jax.Array  # [] reduced cost; inf if there is none


def _nearest(cost, f, g, rows, columns) -> _Entering:
    """Arc of least reduced cost from `rows` [n] to `columns` [m]."""
    low = costs.least(lambda c, f: c - f[:, None], rows, cost, f)
    slack = jnp.where(columns, low.value - g, jnp.inf)
    column = costs.first_least(slack)
    return _Entering(low.row[column], column, slack[column])


def _entering(cost, turned, basis: Basis, rows, columns) -> _Entering:
    """The same, by the rows or by the columns, whichever are fewer."""

    def by_rows() -> _Entering:
        return _nearest(cost, basis.f, basis.g, rows, columns)

    def by_columns() -> _Entering:
        found = _nearest(turned, basis.g, basis.f, columns, rows)
        return _Entering(found.column, found.row, found.slack)

    few = jnp.sum(rows, dtype=jnp.int32) <= jnp.sum(columns, dtype=jnp.int32)
    return control.cond(few, by_rows, by_columns)


def _below(up: jax.Array, node: jax.Array) -> jax.Array:
    """[n + m] bool: a node and all below it. up: parents; that of a root is itself."""

    def double(_, s):
        up, below = s
        return up[up], below | below[up]

    start = up, jnp.zeros(up.shape, bool).at[node].set(True)
    return control.fori_loop(0, up.size.bit_length(), double, start)[1]


def _above(up: jax.Array, node: jax.Array) -> jax.Array:
    """[n + m] bool: the nodes on the way from a node to the root, without the root."""

    def climb(s):
        node, above = s
        return up[node], above.at[node].set(True)

    start = node, jnp.zeros(up.shape, bool)
    return control.while_loop(lambda s: up[s[0]] != s[0], climb, start)[1]


def _exchanged(basis: Basis, up, leaving, below, entering: _Entering, moved) -> Basis:
    """The tree with the entering arc in place of the arc of the node `leaving`."""
    n, size = basis.f.size, basis.parent.size
    node = jnp.arange(size, dtype=jnp.int32)
    row, column = entering.row, n + entering.column
    from_row, from_column = _above(up, row), _above(up, column)
    # Along the cycle through the entering arc, amounts fall and rise in turn.
    way = jnp.where(from_row, 1, -1) * jnp.where(node < n, -1, 1)
    flow = jnp.where(from_row ^ from_column, basis.flow + way * moved, basis.flow)
    # The part below the leaving arc hangs from the entering arc now: on the way from
    # its new top to its old one, parents become children.
    top = jnp.where(below[row], row, column)
    anchor = row + column - top
    turned = below & jnp.where(below[row], from_row, from_column) & (node != leaving)
    place = jnp.where(turned, basis.parent, size)
    return basis._replace(
        parent=basis.parent.at[place].set(node, mode="drop").at[top].set(anchor),
        flow=flow.at[place].set(flow, mode="drop").at[top].set(moved),
    )


def _pivot(cost: jax.Array, turned: jax.Array, basis: Basis) -> Basis:
    n, size = basis.f.size, basis.parent.size
    node = jnp.arange(size, dtype=jnp.int32)
    up = jnp.where(basis.parent < size, basis.parent, node)
    leaving = costs.first_least(basis.flow)
    below = _below(up, leaving)
    rich = jnp.where(leaving < n, ~below, below)  # the side with too much mass
    rows, columns = rich[:n], ~rich[n:]
    entering = _entering(cost, turned, basis, rows, columns)
    stuck = jnp.isinf(entering.slack)
    new = _exchanged(basis, up, leaving, below, entering, -basis.flow[leaving])
    step = jnp.where(stuck, 0, jnp.maximum(entering.slack, 0))
    same = lambda old, new: jnp.where(stuck, old, new)
    return Basis(
        same(basis.parent, new.parent),
        same(basis.flow, new.flow),
        basis.f + jnp.where(rows, step, 0),
        basis.g - jnp.where(columns, 0, step),
        basis.pivots + 1,
        stuck,
    )


@jax.named_scope("crossover")
def crossover(
    cost: jax.Array,
    a: jax.Array,
    b: jax.Array,
    f: jax.Array,
    g: jax.Array,
    unit: jax.Array,
    max_pivots: jax.Array,
) -> Basis:
    """A basis near feasible f and g, optimal if its flow is not negative.

    The nearer f and g are to optimal, the fewer pivots. Amounts below `unit` [] are
    rounding. It ends after n + m or `max_pivots` pivots, or where forbidden pairs leave
    no arc between the two sides of the tree.

    Cost: a pivot is O(n + m) and reads the rows or columns of one side of the tree.
    """
    n, m = cost.shape
    turned = cost.T
    tree, f, g = trees.grow(cost, turned, f, g)
    basis = Basis(
        tree.parent,
        trees.flow(tree, a, b),
        f,
        g,
        jnp.asarray(0, jnp.int32),
        jnp.asarray(False),
    )

    def more(basis: Basis) -> jax.Array:
        wanted = (jnp.min(basis.flow) < -unit) & ~basis.stuck
        return wanted & (basis.pivots < jnp.minimum(max_pivots, n + m))

    return control.while_loop(more, lambda s: _pivot(cost, turned, s), basis)
