"""A sparse matrix with a fixed number of entries in each row and in each column."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ell(NamedTuple):
    """Largest entries of each row united with the largest of each column.

    Shapes are static; an entry that both lists hold counts once (its value in the
    column list is 0). Memory O((n + m) k); a product costs as much.
    """

    row_values: jax.Array  # [n, k]
    row_index: jax.Array  # [n, k] columns
    column_values: jax.Array  # [m, k]
    column_index: jax.Array  # [m, k] rows

    factorisable = False

    def times(self, v: jax.Array) -> jax.Array:
        """Matrix times v [m], giving [n]."""
        gathered = jnp.sum(self.row_values * v[self.row_index], axis=1)
        return gathered.at[self.column_index].add(self.column_values * v[:, None])

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """Transposed matrix times u [n], giving [m]."""
        gathered = jnp.sum(self.column_values * u[self.column_index], axis=1)
        return gathered.at[self.row_index].add(self.row_values * u[:, None])

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """Matrix diag(weights) matrix^T u, [n]."""
        return self.times(weights * self.transpose_times(u))

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(Matrix o matrix) times v, [n]: no entry is held twice."""
        squares = self._replace(
            row_values=self.row_values**2, column_values=self.column_values**2
        )
        return squares.times(v)


def repeats(row_index: jax.Array, column_index: jax.Array) -> jax.Array:
    """[m, k] int32 place that an entry of the column list has in the list of its row.

    k if it is not there: cut to the first `s` of each list, an entry of the columns
    is held twice if its place is below s. O(m k^2).
    """
    m, k = column_index.shape
    columns = jnp.arange(m, dtype=row_index.dtype)
    same = row_index[column_index] == columns[:, None, None]  # [m, k, k]
    place = jnp.argmax(same, axis=2).astype(jnp.int32)
    return jnp.where(jnp.any(same, axis=2), place, k)


def unite(
    row_values: jax.Array,
    row_index: jax.Array,
    column_values: jax.Array,
    column_index: jax.Array,
) -> Ell:
    """Make one matrix of two lists, dropping what the second repeats; O(m k^2)."""
    twice = repeats(row_index, column_index) < row_index.shape[1]
    column_values = jnp.where(twice, 0, column_values)
    return Ell(row_values, row_index, column_values, column_index)
