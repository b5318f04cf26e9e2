"""A sparse matrix with a fixed number of entries in each row and in each column."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ell(NamedTuple):
    """Largest entries of each row united with the largest of each column.

    Shapes are static; an entry that both lists hold counts once (its value in the
    column list is 0). Memory O((n + m) k).
    """

    row_values: jax.Array  # [n, k]
    row_index: jax.Array  # [n, k] columns
    column_values: jax.Array  # [m, k]
    column_index: jax.Array  # [m, k] rows


def unite(
    row_values: jax.Array,
    row_index: jax.Array,
    column_values: jax.Array,
    column_index: jax.Array,
) -> Ell:
    """Make one matrix of two lists, dropping what the second repeats; O(m k^2)."""
    m = column_values.shape[0]
    columns = jnp.arange(m, dtype=row_index.dtype)
    listed = row_index[column_index]  # [m, k, k]
    repeated = jnp.any(listed == columns[:, None, None], axis=2)
    column_values = jnp.where(repeated, 0, column_values)
    return Ell(row_values, row_index, column_values, column_index)


def times(matrix: Ell, v: jax.Array) -> jax.Array:
    """Matrix times v [m], giving [n]."""
    gathered = jnp.sum(matrix.row_values * v[matrix.row_index], axis=1)
    return gathered.at[matrix.column_index].add(matrix.column_values * v[:, None])


def transpose_times(matrix: Ell, u: jax.Array) -> jax.Array:
    """Transposed matrix times u [n], giving [m]."""
    gathered = jnp.sum(matrix.column_values * u[matrix.column_index], axis=1)
    return gathered.at[matrix.row_index].add(matrix.row_values * u[:, None])
