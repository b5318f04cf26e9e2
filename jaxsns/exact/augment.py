"""From potentials and a flow on tight arcs to an optimal plan, by shortest paths.

Rows with mass left are the roots of trees of shortest paths. Each tree ends in columns
that lack mass; one path of each tree is filled at a time. Trees are disjoint, so these
paths are filled at once. The potentials then take the distances in, which keeps the
reduced costs >= 0 and those of arcs with mass at 0. Source: Ahuja, Magnanti, Orlin,
"Network flows" (1993), section 9.7, successive shortest paths.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact import paths
from jaxsns.exact.paths import Forest
from jaxsns.numerics import machine_epsilon

SMALL = 16  # machine epsilons of a mass: what is left of it counts as nothing [D46]


class Flow(NamedTuple):
    """A plan that may lack mass, and potentials that prove it cheap."""

    f: jax.Array  # [n] in units of cost
    g: jax.Array  # [m]
    plan: jax.Array  # [n, m] mass, on arcs whose reduced cost is 0
    rows: jax.Array  # [n] mass that is left
    columns: jax.Array  # [m] mass that is lacking
    steps: jax.Array  # [] int32 pivots, and rounds of shortest paths
    going: jax.Array  # [] bool: the last round moved something


def started(f, g, plan: jax.Array, a: jax.Array, b: jax.Array, steps) -> Flow:
    """Flow before the first round, after so many steps of another kind."""
    rows, columns = a - jnp.sum(plan, axis=1), b - jnp.sum(plan, axis=0)
    return Flow(f, g, plan, rows, columns, steps, jnp.asarray(True))


def _roots(tree: Forest, sources: jax.Array) -> jax.Array:
    """[m] int32 row at the root of the tree of each column; n for none."""
    n, m = tree.rows.size, tree.columns.size
    reached = tree.row_of < n
    row = jnp.minimum(tree.row_of, n - 1)
    here = jnp.arange(m, dtype=jnp.int32)
    up = jnp.where(reached & ~sources[row], tree.column_of[row], here)
    up = jnp.minimum(up, m - 1)
    for _ in range(max(min(n, m), 2).bit_length()):  # doubles the distance each time
        up = up[up]
    return jnp.where(reached, row[up], n)


def _ends(root: jax.Array, distance: jax.Array, live: jax.Array) -> jax.Array:
    """[n] int32 nearest column of the tree of each live row; m for none.

    distance: [m] inf where a column is no end.
    """
    n, m = live.size, root.size
    best = jnp.full((n + 1,), jnp.inf, distance.dtype).at[root].min(distance)
    first = (distance == best[root]) & jnp.isfinite(distance)
    here = jnp.where(first, jnp.arange(m, dtype=jnp.int32), m)
    ends = jnp.full((n + 1,), m, jnp.int32).at[root].min(here)[:n]
    return jnp.where(live, ends, m)


def _fill(tree: Forest, flow: Flow, sources: jax.Array, ends: jax.Array) -> Flow:
    """Move along all paths what their narrowest arcs let through."""
    n, m = flow.plan.shape

    def along(act, value):
        """Go from the ends to the roots: act(value, live, inner, row, to, back)."""

        def step(s):
            column, live, value = s
            row = jnp.minimum(tree.row_of[jnp.minimum(column, m - 1)], n - 1)
            inner = live & ~sources[row]
            before = jnp.minimum(tree.column_of[row], m - 1)
            value = act(value, live, inner, row, column, before)
            return jnp.where(inner, before, column), inner, value

        return control.while_loop(
            lambda s: jnp.any(s[1]), step, (ends, ends < m, value)
        )[2]

    def narrowed(amount, live, inner, row, to, back):
        del live, to
        return jnp.where(inner, jnp.minimum(amount, flow.plan[row, back]), amount)

    def pushed(plan, live, inner, row, to, back):
        plan = plan.at[jnp.where(live, row, n), to].add(amount, mode="drop")
        return plan.at[jnp.where(inner, row, n), back].add(-amount, mode="drop")

    room = jnp.minimum(flow.rows, flow.columns[jnp.minimum(ends, m - 1)])
    amount = along(narrowed, jnp.where(ends < m, room, 0))
    return flow._replace(
        plan=along(pushed, flow.plan),
        rows=flow.rows - amount,
        columns=flow.columns.at[ends].add(-amount, mode="drop"),
    )


def _fill_all(
    tree: Forest, flow: Flow, sources: jax.Array, sinks: jax.Array, least_a: jax.Array
) -> Flow:
    """Fill the paths to the ends of each tree one after another, the nearest first."""
    n, m = flow.plan.shape
    root = _roots(tree, sources)
    goal = sinks & (root < n) & (tree.columns <= tree.bound)
    distance = jnp.where(goal, tree.columns, jnp.inf)

    def step(s):
        flow, distance, ends = s
        flow = _fill(tree, flow, sources, ends)
        distance = distance.at[ends].set(jnp.inf, mode="drop")
        live = sources & (flow.rows > least_a)
        return flow, distance, _ends(root, distance, live)

    start = flow, distance, _ends(root, distance, sources)
    found = jnp.any(start[2] < m)
    flow = control.while_loop(lambda s: jnp.any(s[2] < m), step, start)[0]
    return flow._replace(steps=flow.steps + 1, going=found)


def _round(cost: jax.Array, least_a: jax.Array, least_b: jax.Array, flow: Flow) -> Flow:
    sources, sinks = flow.rows > least_a, flow.columns > least_b
    used = flow.plan.T > 0
    tree = paths.forest(cost, flow.f, flow.g, used, sources, sinks)
    far = lambda x: jnp.max(jnp.where(jnp.isfinite(x), x, 0))
    bound = jnp.minimum(tree.bound, jnp.maximum(far(tree.rows), far(tree.columns)))
    new = _fill_all(tree, flow, sources, sinks, least_a)
    f = flow.f - jnp.minimum(tree.rows, bound)
    return new._replace(f=f, g=flow.g + jnp.minimum(tree.columns, bound))


@jax.named_scope("augment")
def augmented(
    cost: jax.Array, a: jax.Array, b: jax.Array, start: Flow, max_steps: jax.Array
) -> Flow:
    """Go on until no row has mass left, no path is left, or the limit is reached.

    Cost: a round reads each row of the costs at most once or twice on a CPU; it is a
    pass over all of them for each distance that occurs elsewhere.
    """
    unit = SMALL * machine_epsilon(cost.dtype)

    def more(flow: Flow) -> jax.Array:
        left = jnp.any(flow.rows > unit * a) & (flow.steps < max_steps)
        return flow.going & left

    def step(flow: Flow) -> Flow:
        return _round(cost, unit * a, unit * b, flow)

    return control.while_loop(more, step, start)
