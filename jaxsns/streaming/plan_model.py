"""A plan in O((n + m) k) numbers: its largest entries, and the rest cluster by cluster.

What the lists of largest entries leave of the plan is kept as the mass T_IJ that each
cluster of rows sends to each cluster of columns, spread within them as the tails of the
rows and of the columns are: P ~ E + diag(alpha) Z T Z'^T diag(beta). Row and column
sums are those of the plan, up to rounding. A plan that is sparse is in E; one that is
smooth is in T; what is neither is between them. Used as model of the plan around the
potentials at which it was built (`solvers.model_step`), and as preconditioner.
Sources: aggregation as in Koury, McAllister and Stewart (1984) for Markov chains;
largest entries as in Tang et al., ICLR 2024.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Streamed, blocks
from jaxsns.linear.ell import Ell
from jaxsns.numerics import matmul, safe_log
from jaxsns.streaming.clusters import ClusterLayout

KEPT = 32  # entries in the list of a row or column [D23]
COMPARED = 2048  # columns whose lists are compared with those of rows at a time [D23]


class PlanModel(NamedTuple):
    """The approximation, with its products; O((n + m) k + clusters^2) each."""

    entries: Ell
    alpha: jax.Array  # [n] shares of the tail of a row in that of its cluster
    beta: jax.Array  # [m]
    flow: jax.Array  # [clusters of rows, clusters of columns] mass outside the lists

    factorisable = False

    def _far(self, left, flow, right, v):
        rows, columns = flow.shape
        within = jnp.sum((right * v).reshape(columns, -1), axis=1)
        out = matmul(flow, within)
        return left * jnp.repeat(out, left.shape[0] // rows)

    def times(self, v: jax.Array) -> jax.Array:
        """Product with v [m], giving [n]."""
        far = self._far(self.alpha, self.flow, self.beta, v)
        return self.entries.times(v) + far

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """Product of the transposed with u [n], giving [m]."""
        far = self._far(self.beta, self.flow.T, self.alpha, u)
        return self.entries.transpose_times(u) + far

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """Product with diag(weights) between it and its transposed, [n]."""
        return self.times(weights * self.transpose_times(u))

    def sums(self, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums, scaled by v."""
        return self.times(v), v * self.transpose_times(jnp.ones_like(self.alpha))

    def squares_times(self, v: jax.Array) -> jax.Array:
        """Squares of entries times v, [n], as if no entry were in both parts."""
        far = self._far(self.alpha**2, self.flow**2, self.beta**2, v)
        return self.entries.squares_times(v) + far


class Pattern(NamedTuple):
    """Which entries are kept: the largest of each row and of each column."""

    row_index: jax.Array  # [n, k] int32 columns
    column_index: jax.Array  # [m, k] int32 rows
    repeated: jax.Array  # [m, k] bool: in the list of its row as well
    used: jax.Array  # [] bool: False before one was looked for


def no_pattern(n: int, m: int, k: int) -> Pattern:
    """Lists that keep nothing."""
    index = lambda rows: jnp.zeros((rows, k), jnp.int32)
    return Pattern(index(n), index(m), jnp.ones((m, k), bool), jnp.asarray(False))


@jax.named_scope("largest_entries")
def find_pattern(
    geometry: Streamed, f: jax.Array, g: jax.Array, epsilon: jax.Array, k: int
) -> Pattern:
    """Look for the largest entries of the plan of f and g; two passes of sorting."""
    by_row = geometry.largest(f, g, epsilon, k, axis=1).indices
    by_column = geometry.largest(f, g, epsilon, k, axis=0).indices

    def repeated(given):
        columns, own = given
        # [block, k, k] comparisons exist at a time, not [m, k, k].
        same = by_row[columns] == own[:, None, None]
        return (), jnp.any(same, axis=2)

    columns = by_column, jnp.arange(by_column.shape[0], dtype=by_row.dtype)
    size = min(COMPARED, by_column.shape[0])
    twice = blocks.scan(repeated, columns, size)[1]
    return Pattern(by_row, by_column, twice, jnp.asarray(True))


def build(
    geometry: Streamed,
    f: jax.Array,
    g: jax.Array,
    epsilon: jax.Array,
    pattern: Pattern,
    rows: jax.Array,
    columns: jax.Array,
    flow: jax.Array,
    shapes: tuple[ClusterLayout, ClusterLayout],
) -> PlanModel:
    """Approximate the plan of finite f and g.

    rows, columns: its sums; flow: its mass from cluster to cluster. O((n + m) k d).
    """
    n, m = rows.shape[0], columns.shape[0]
    row, column = jnp.arange(n)[:, None], jnp.arange(m)[:, None]
    kept = _entries(geometry, f, g, epsilon, pattern)
    x, y = shapes
    listed = jnp.zeros_like(flow)
    place = row // x.size, kept.row_index // y.size
    listed = listed.at[place].add(kept.row_values)
    place = kept.column_index // x.size, column // y.size
    listed = listed.at[place].add(kept.column_values)
    flow = jnp.maximum(flow - listed, 0)
    row_tail = jnp.maximum(rows - kept.times(jnp.ones_like(columns)), 0)
    column_tail = jnp.maximum(columns - kept.transpose_times(jnp.ones_like(rows)), 0)
    return PlanModel(
        kept,
        _shares(row_tail, jnp.sum(flow, axis=1), x),
        _shares(column_tail, jnp.sum(flow, axis=0), y),
        flow,
    )


def recentred(
    kernel: PlanModel,
    geometry: Streamed,
    f: jax.Array,
    g: jax.Array,
    epsilon: jax.Array,
    pattern: Pattern,
    x: jax.Array,
    y: jax.Array,
) -> PlanModel:
    """The same model, around f and g that differ by epsilon x and epsilon y.

    Listed entries are computed anew: what was too small to be held may count now.
    """
    kept = _entries(geometry, f, g, epsilon, pattern)
    alpha = jnp.exp(safe_log(kernel.alpha) + x)
    beta = jnp.exp(safe_log(kernel.beta) + y)
    return PlanModel(kept, alpha, beta, kernel.flow)


def _entries(
    geometry: Streamed,
    f: jax.Array,
    g: jax.Array,
    epsilon: jax.Array,
    pattern: Pattern,
) -> Ell:
    """Listed entries of the plan of finite f and g."""

    def at(rows, columns):
        cost = geometry.pair_costs(rows, columns)
        return jnp.exp((f[rows] + g[columns] - cost) / epsilon)

    row, column = jnp.arange(f.shape[0])[:, None], jnp.arange(g.shape[0])[:, None]
    by_row = jnp.where(pattern.used, at(row, pattern.row_index), 0)
    by_column = at(pattern.column_index, column)
    by_column = jnp.where(pattern.used & ~pattern.repeated, by_column, 0)
    return Ell(by_row, pattern.row_index, by_column, pattern.column_index)


def _shares(tail: jax.Array, whole: jax.Array, shape: ClusterLayout) -> jax.Array:
    safe = jnp.where(whole > 0, whole, 1)
    return tail * jnp.repeat(jnp.where(whole > 0, 1 / safe, 0), shape.size)
