"""Small dense algebra for many problems at once, the problems on the last axis.

With lanes last every operation is elementwise along the fast axis: vectorised on a
CPU, one thread a lane on a GPU. A library call for each tiny matrix would cost more
than its arithmetic.
"""

import functools

import jax
import jax.numpy as jnp

from jaxsns import control

UNROLLED = 8  # terms up to which sums are written out [D21]


def times(matrix: jax.Array, v: jax.Array) -> jax.Array:
    """Matrices [n, m, lanes] times vectors [m, lanes], giving [n, lanes]."""
    if matrix.shape[1] <= UNROLLED:
        terms = [matrix[:, j] * v[j] for j in range(matrix.shape[1])]
        return functools.reduce(jnp.add, terms)
    return jnp.sum(matrix * v[None], axis=1)


def transpose_times(matrix: jax.Array, u: jax.Array) -> jax.Array:
    """Transposed matrices [n, m, lanes] times vectors [n, lanes]: [m, lanes]."""
    if matrix.shape[0] <= UNROLLED:
        terms = [matrix[i] * u[i] for i in range(matrix.shape[0])]
        return functools.reduce(jnp.add, terms)
    return jnp.sum(matrix * u[:, None], axis=0)


def gram(matrix: jax.Array) -> jax.Array:
    """Q Q^T of matrices [n, m, lanes], giving [n, n, lanes]."""
    n, m, lanes = matrix.shape
    if m <= UNROLLED:
        terms = [matrix[:, j][:, None] * matrix[:, j][None] for j in range(m)]
        return functools.reduce(jnp.add, terms)

    def add(j, total):
        column = matrix[:, j]
        return total + column[:, None] * column[None]

    return control.fori_loop(0, m, add, jnp.zeros((n, n, lanes), matrix.dtype))


def solve_definite(matrix: jax.Array, rhs: jax.Array) -> jax.Array:
    """Solve positive definite systems [n, n, lanes] x = [n, lanes]; O(n^3) a lane.

    Elimination without pivots (Gauss and Jordan), stable for such matrices. A pivot
    that is not positive gives a result that is not finite or not a direction of
    ascent: look at it.
    """

    def eliminate(k, state):
        a, x = state
        pivot = 1 / a[k, k]
        row, value = a[k] * pivot, x[k] * pivot
        column = a[:, k]
        here = (jnp.arange(x.shape[0]) == k)[:, None]
        a = jnp.where(here[:, None], row[None], a - column[:, None] * row[None])
        x = jnp.where(here, value[None], x - column * value[None])
        return a, x

    return control.fori_loop(0, rhs.shape[0], eliminate, (matrix, rhs))[1]
