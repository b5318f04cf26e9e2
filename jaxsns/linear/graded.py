"""Float32 Cholesky factors of nearly singular M-matrices, right in every mode.

A = D - offdiag(Q Q^T) with Q >= 0 and A w = g, w > 0 and g >= 0 known: the diagonal
follows from the rest, and elimination needs no subtraction. Entries and pivots then
have small relative errors however small they are, where float32 would lose
eigenvalues below 1e-7 of the diagonal. A plan that nearly splits into blocks has many of
those.
Sources: Grassmann, Taksar and Heyman, Operations Research 33 (1985); Alfa, Xue and
Ye, Mathematics of Computation 71 (2002).
"""

import jax
import jax.numpy as jnp

from jaxsns.linear import lapack
from jaxsns.numerics import matmul

STRIPES = 8  # of rows, eliminated one after the other
COPIES = 4  # of ever fewer rows of Q, instead of products with rows that are done


def factorise(q: jax.Array, weights: jax.Array, surplus: jax.Array) -> jax.Array:
    """[n * n] factor L of A, column by column; what stands above it is 0.

    Args:
      q: [n, m] float32, Q.
      weights: [n] w in the dtype of the solve, 0 where the row of Q is.
      surplus: [n] g, in all not 0.

    Cost: n^2 (m + n / 3) float32 products, all but n^2 / 4 of them in matrix products.
    """
    n, dtype = q.shape[0], weights.dtype
    starts = [i * n // STRIPES for i in range(STRIPES)]
    factor, solved = jnp.zeros(n * n, q.dtype), jnp.zeros(0, dtype)
    base, later = 0, q
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        size, first = end - start, start * COPIES // n * n // COPIES
        if first != base:
            base, later = first, q[first:]
        part = matmul(q[start:end], later.T)[:, start - base :]
        mine = surplus[start:end]
        if start:
            above = factor.reshape(n, n)[:start, start:]
            own = above[:, :size]
            part = part + matmul(own.T, above)
            mine = mine - matmul(own.T.astype(dtype), solved)
        block = part[:, :size].astype(dtype)
        w = weights[start:end]
        sums = jnp.sum(part.astype(dtype) * weights[None, start:], axis=1)
        sums = sums - jnp.diagonal(block) * w + mine
        diagonal = jnp.where(w > 0, sums / jnp.where(w > 0, w, 1), 1)
        here = jnp.eye(size, dtype=bool)
        block = jnp.where(here, diagonal[:, None], -(block + block.T) / 2)
        lower = jnp.tril(lapack.cholesky(block))
        inverse = lapack.triangular_inverse(lower)
        rest = matmul(jnp.maximum(inverse, 0).astype(q.dtype), part[:, size:])
        solved = jnp.concatenate([solved, matmul(inverse, mine)])
        done = jnp.zeros((size, start), q.dtype)
        row = jnp.concatenate([done, lower.T.astype(q.dtype), -rest], axis=1)
        factor = jax.lax.dynamic_update_slice(factor, row.ravel(), (start * n,))
    return factor
