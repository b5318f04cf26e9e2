"""A plan held as a matrix, behind the products that the solvers need.

Other geometries bring classes of their own with the methods of `Kernel`; solvers look
inside only where they factorise or search a matrix.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxsns.numerics import matmul


class Kernel(Protocol):
    """What every kernel K [n, m] can do."""

    @property
    def factorisable(self) -> bool:
        """Whether its `matrix` is at hand."""
        ...

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [n]."""
        ...

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [m]."""
        ...

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """K diag(weights) K^T u, [n]."""
        ...

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(K o K) v, [n]."""
        ...

    def sums(self, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of K diag(v)."""
        ...


class DenseKernel(NamedTuple):
    """Non-negative matrix K [n, m] with its products."""

    matrix: jax.Array

    factorisable = True  # the matrix is at hand

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [n]."""
        return matmul(self.matrix, v)

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [m]."""
        return matmul(u, self.matrix)

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """K diag(weights) K^T u, [n]."""
        return self.times(weights * self.transpose_times(u))

    def sums(self, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of K diag(v)."""
        plan = self.matrix * v[None, :]
        return jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(K o K) v, [n]: diagonals of products of K; one sweep over K."""
        k, m = self.matrix, self.matrix.shape[1]
        # Eight sums at once: one alone waits for each of its additions [D20].
        width = m // 8
        parts = [slice(i * width, (i + 1) * width) for i in range(8)]
        sums = sum(k[:, p] * k[:, p] * v[None, p] for p in parts)
        rest = slice(8 * width, m)
        return jnp.sum(sums, axis=1) + jnp.sum(k[:, rest] ** 2 * v[None, rest], axis=1)
