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
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.linear import lapack
from jaxsns.numerics import matmul

STRIPES = 5  # of rows, eliminated one after the other


class Factor(NamedTuple):
    """A = U^T U by stripes of rows, float32."""

    inverses: tuple[jax.Array, ...]  # [s, s] of the transposed blocks on the diagonal
    rests: tuple[jax.Array, ...]  # [s, n - end] what is right of them


def factorise(
    products: Callable[[jax.Array, int, int], jax.Array],
    weights: jax.Array,
    surplus: jax.Array,
) -> Factor:
    """Factor of A, which is [n, n].

    Args:
      products: of a row, a number of rows and one of columns, that part of Q Q^T in
        float32 from the diagonal of that row on; below the diagonal anything.
      weights: [n] w in the dtype of the solve, 0 where the row of Q is.
      surplus: [n] g, in all not 0.

    NaN if it fails. Cost: n^3 / 3 float32 products, in matrix products but for n^2 / 8;
    about an array of [n, n] in float32, as the products are never all there.
    """
    n, dtype = weights.size, weights.dtype
    ends = [(i + 1) * n // STRIPES for i in range(STRIPES)]
    inverses: list[jax.Array] = []
    rests: list[jax.Array] = []
    solved: list[jax.Array] = []
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
        inverse = _eliminate(part, weights[start:], mine)
        solved.append(matmul(inverse, mine.astype(part.dtype)))
        rests.append(matmul(-inverse, part[:, size:]))
        inverses.append(inverse)
    return Factor(tuple(inverses), tuple(rests))


def _eliminate(part: jax.Array, weights: jax.Array, surplus: jax.Array) -> jax.Array:
    """Inverse [size, size] of the factor of the first rows of what is left.

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
    # Sums of positive numbers once more: float32 would do, with twice the error.
    inverse = jnp.tril(lapack.triangular_inverse(lower))
    return jnp.maximum(inverse, 0).astype(part.dtype)


def solve(factor: Factor, rhs: jax.Array) -> jax.Array:
    """Solve A x = rhs, [n] float32, in products with what the factor holds; O(n^2).

    They take a quarter of the time of LAPACK's substitution with one right side.
    """
    left, half = rhs, []
    for inverse, rest in zip(*factor, strict=True):
        size = inverse.shape[0]
        half.append(matmul(inverse, left[:size]))
        left = left[size:] - matmul(rest.T, half[-1])
    x = left  # of size 0
    for inverse, rest, y in reversed(list(zip(*factor, half, strict=True))):
        x = jnp.concatenate([matmul(inverse.T, y - matmul(rest, x)), x])
    return x
