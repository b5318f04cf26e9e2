"""A plan held as a matrix, behind the products that the solvers need.

A streamed or sharded geometry brings its own class with the same four methods;
no solver looks inside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import matmul


class DenseKernel(NamedTuple):
    """Non-negative matrix K [n, m] with its products."""

    matrix: jax.Array

    factorisable = True  # there is a `gram` for it

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [n]."""
        return matmul(self.matrix, v)

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [m]."""
        return matmul(u, self.matrix)

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(K o K) v, [n]: diagonals of products of K; one sweep over K."""
        return jnp.sum(self.matrix * self.matrix * v[None, :], axis=1)

    def gram(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Q Q^T, [n, n], of Q = diag(left) K diag(right); O(n^2 m) time."""
        scaled = left[:, None] * self.matrix * right[None, :]
        return matmul(scaled, scaled.T)
