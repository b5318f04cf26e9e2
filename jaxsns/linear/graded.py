"""Float32 Cholesky factors of nearly singular M-matrices, right in nearly every mode.

A = D - offdiag(Q Q^T) with Q >= 0 and A w = g, w > 0 and g >= 0 known: the diagonal
follows from the rest, and elimination needs no subtraction. Entries and pivots then
have small relative errors however small they are, and an eigenvalue t of A, of unit
diagonal, one of some 1e-7 / sqrt(t), where LAPACK's factor in float32 has 1e-7 / t. A
plan that nearly splits into blocks has many modes with t below 1e-7.
Sources: Grassmann, Taksar and Heyman, Operations Research 33 (1985); Alfa, Xue and
Ye, Mathematics of Computation 71 (2002).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsns.linear import lapack
from jaxsns.numerics import matmul

STRIPES = 5  # of rows, eliminated one after the other


def factorise(
    products: Callable[[jax.Array, int, int], jax.Array],
    weights: jax.Array,
    surplus: jax.Array,
) -> jax.Array:
    """[n, n] upper factor U of A = U^T U.

    Args:
      products: of a row, a number of rows and one of columns, that part of Q Q^T in
        float32 from the diagonal of that row on; below the diagonal anything.
      weights: [n] w in the dtype of the solve, 0 where the row of Q is.
      surplus: [n] g, in all not 0.

    NaN if it fails. Cost: n^3 / 3 float32 products, in matrix products but for n^2 / 8;
    1.8 arrays of [n, n] in float32, as the products are never all there.
    """
    n, dtype = weights.size, weights.dtype
    ends = [(i + 1) * n // STRIPES for i in range(STRIPES)]
    blocks: list[jax.Array] = []  # of U on the diagonal, and what is right of them
    rests: list[jax.Array] = []
    solved: list[jax.Array] = []
    # In one matrix, filled in place, XLA on the CPU copies it for an order of its own.
    for start, end in zip([0, *ends], ends, strict=False):
        size, first = end - start, jnp.asarray(start)
        if rests:
            # Or else XLA makes all products at the beginning.
            first = jnp.where(jnp.isnan(rests[-1][-1, -1]), 0, first)
        part, mine = products(first, size, n - start), surplus[start:end]
        for above, known in zip(rests, solved, strict=True):
            above = above[:, start - n :]
            own = above[:, :size]
            part = part + matmul(own.T, above)
            # Numbers of one sign again: float32 does.
            mine = mine - matmul(own.T, known).astype(dtype)
        lower, inverse = _eliminate(part, weights[start:], mine)
        solved.append(matmul(inverse, mine).astype(part.dtype))
        blocks.append(lower.T.astype(part.dtype))
        inverse = jnp.minimum(-inverse, 0).astype(part.dtype)
        rests.append(matmul(inverse, part[:, size:]))

    def whole(block: jax.Array, rest: jax.Array) -> jax.Array:
        row = jnp.concatenate([block, rest], axis=1)
        return jnp.pad(row, ((0, 0), (n - row.shape[1], 0)))

    return jnp.concatenate([whole(*row) for row in zip(blocks, rests, strict=True)])


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
