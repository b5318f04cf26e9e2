"""Float32 Cholesky factors of nearly singular M-matrices, right in nearly every mode.

A = D - offdiag(Q Q^T) with Q >= 0 and A w = g, w > 0 and g >= 0 known: the diagonal
follows from the rest, and elimination needs no subtraction. Entries and pivots then
have small relative errors however small they are, and an eigenvalue t of A, of unit
diagonal, one of some 1e-7 / sqrt(t), where LAPACK's factor in float32 has 1e-7 / t. A
plan that nearly splits into blocks has many modes with t below 1e-7.
Sources: Grassmann, Taksar and Heyman, Operations Research 33 (1985); Alfa, Xue and
Ye, Mathematics of Computation 71 (2002).
"""

import jax
import jax.numpy as jnp

from jaxsns.linear import lapack
from jaxsns.numerics import matmul

STRIPES = 5  # of rows, eliminated one after the other


def factorise(product: jax.Array, weights: jax.Array, surplus: jax.Array) -> jax.Array:
    """[n, n] upper factor U of A = U^T U, in the upper triangle; anything below it.

    Args:
      product: [n, n] float32, Q Q^T, of which the upper triangle is read.
      weights: [n] w in the dtype of the solve, 0 where the row of Q is.
      surplus: [n] g, in all not 0.

    NaN if it fails. Cost: n^3 / 3 float32 products, in matrix products but for n^2 / 8.
    """
    n, dtype = product.shape[0], weights.dtype
    starts = [i * n // STRIPES for i in range(STRIPES)]
    # Rows that are done hold their part of U, the others still their products.
    matrix, solved = product, jnp.zeros(0, product.dtype)
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        size = end - start
        part, mine = matrix[start:end, start:], surplus[start:end]
        if start:
            above = matrix[:start, start:]
            own = above[:, :size]
            part = part + matmul(own.T, above)
            # Numbers of one sign again: float32 does.
            mine = mine - matmul(own.T, solved).astype(dtype)
        lower, inverse = _eliminate(part, weights[start:], mine)
        rest = matmul(jnp.maximum(inverse, 0).astype(part.dtype), part[:, size:])
        part_solved = matmul(inverse, mine).astype(part.dtype)
        solved = jnp.concatenate([solved, part_solved])
        row = jnp.concatenate([lower.T.astype(part.dtype), -rest], axis=1)
        matrix = jax.lax.dynamic_update_slice(matrix, row, (start, start))
    return matrix


def _eliminate(part: jax.Array, weights: jax.Array, surplus: jax.Array):
    """Factor [size, size] of the first rows of what is left, and its inverse.

    part: [size, rest] off-diagonal entries of these rows, negated; surplus: [size].
    """
    size, dtype = part.shape[0], weights.dtype
    w = weights[:size]
    block = jnp.triu(part[:, :size], 1).astype(dtype)
    block = block + block.T
    sums = jnp.sum(part[:, size:].astype(dtype) * weights[None, size:], axis=1)
    sums = matmul(block, w) + sums + surplus
    diagonal = jnp.where(w > 0, sums / jnp.where(w > 0, w, 1), 1)
    lower = jnp.tril(lapack.cholesky(jnp.diag(diagonal) - block))
    return lower, lapack.triangular_inverse(lower)
