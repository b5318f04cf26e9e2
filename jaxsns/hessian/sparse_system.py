"""The Newton matrix made sparse: the largest entries of the plan, the rest lumped.

Of the plan P the largest k entries of each row and of each column are kept. What is
dropped leaves the two diagonals too large by its row and column sums; a share THETA
of these stays (lumping), since with all of it the slow modes become too stiff.
Sources: Tang et al., ICLR 2024 (sparse Hessian); Tang and Qiu, NeurIPS 2024 (the
dropped mass bounded by the error).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur as schur
from jaxsns.hessian.schur import SchurSystem
from jaxsns.linear import ell
from jaxsns.linear.ell import Ell

SIZES = (8, 16, 32)  # entries kept of each row and each column
THETA = 0.1  # share of the dropped mass that stays on the diagonal
SPEED = 12  # times as long as in a dense product an entry takes in a sparse one


class Pattern(NamedTuple):
    """The largest entries of a kernel, sorted, so that any k can be cut from them."""

    row_values: jax.Array  # [n, k] of K
    row_index: jax.Array  # [n, k] columns
    column_values: jax.Array  # [m, k]
    column_index: jax.Array  # [m, k] rows
    place: jax.Array  # [m, k] where the row's list holds the same entry


def sizes(n: int, m: int) -> tuple[int, ...]:
    """Numbers of entries for which a sparse product is cheaper than a dense one."""
    cheap = tuple(k for k in SIZES if SPEED * k * (n + m) <= n * m)
    return cheap or (min(SIZES[0], n, m),)


def nothing(n: int, m: int, dtype: jnp.dtype) -> Pattern:
    """Empty lists, in the shapes that `largest` returns."""
    k = max(sizes(n, m))
    number = lambda rows: jnp.zeros((rows, k), dtype)
    index = lambda rows: jnp.zeros((rows, k), jnp.int32)
    return Pattern(number(n), index(n), number(m), index(m), index(m))


def largest(
    kernel: DenseKernel, u: jax.Array, v: jax.Array, rows: jax.Array
) -> Pattern:
    """Find the largest entries of diag(u) K diag(v) in each row and each column.

    Ranked in float32, in which `top_k` is 10 to 20 times faster than in float64 on a
    CPU, after division by the row sum, so that whatever underflows is negligible.
    Cost: one sweep over the kernel and two `top_k`; two [n, m] arrays of float32.
    """
    n, m = kernel.matrix.shape
    k = max(sizes(n, m))
    left = u / jnp.where(rows > 0, rows, 1)
    share = (left[:, None] * kernel.matrix * v[None, :]).astype(jnp.float32)
    by_row = jax.lax.top_k(share, k)[1]
    mass = rows.astype(jnp.float32)
    by_column = jax.lax.top_k((share * mass[:, None]).T, k)[1]
    columns = jnp.arange(m, dtype=by_column.dtype)[:, None]
    return Pattern(
        jnp.take_along_axis(kernel.matrix, by_row, axis=1),
        by_row,
        kernel.matrix[by_column, columns],
        by_column,
        ell.repeats(by_row, by_column),
    )


def cut(pattern: Pattern, k: int) -> Ell:
    """Keep the first k entries of each list, as one matrix."""
    twice = pattern.place[:, :k] < k
    return Ell(
        pattern.row_values[:, :k],
        pattern.row_index[:, :k],
        jnp.where(twice, 0, pattern.column_values[:, :k]),
        pattern.column_index[:, :k],
    )


def share(pattern: Pattern, k: int) -> jax.Array:
    """[] share of all entries that the first k of each list are."""
    n, m = pattern.row_index.shape[0], pattern.column_index.shape[0]
    once = (n + m) * k - jnp.sum(pattern.place[:, :k] < k)
    return once.astype(pattern.row_values.dtype) / (n * m)


def dropped(pattern: Pattern, u: jax.Array, v: jax.Array, rows: jax.Array) -> jax.Array:
    """[len(sizes)] share of the mass of diag(u) K diag(v) that each size drops."""
    n, m = u.shape[0], v.shape[0]
    missing = [rows - u * cut(pattern, k).times(v) for k in sizes(n, m)]
    lost = jnp.stack([jnp.sum(jnp.maximum(x, 0)) for x in missing])
    return lost / jnp.sum(rows)


def lumped(
    system: SchurSystem,
    entries: Ell,
    u: jax.Array,
    v: jax.Array,
    sums: tuple[jax.Array, jax.Array],
    stiffness: tuple[jax.Array, jax.Array],
) -> SchurSystem:
    """Approximate a system on kept entries, in the same scaling of the unknowns.

    sums: of the rows [n] and columns [m] of the plan; stiffness: what penalties add.
    """
    rows, columns = sums
    kept_rows = u * entries.times(v)
    kept_columns = v * entries.transpose_times(u)
    unit = kept_rows + THETA * (rows - kept_rows) + stiffness[0]
    whole = rows + stiffness[0]
    unit = jnp.where(whole > 0, unit / jnp.where(whole > 0, whole, 1), 1)
    lower = kept_columns + THETA * (columns - kept_columns) + stiffness[1]
    return system._replace(
        kernel=entries, right=v * schur.inverse_root(lower), unit=unit
    )
