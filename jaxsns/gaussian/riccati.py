"""The symmetric solution T of T A T = B, and factors of A and B that fit together.

With roots R R = A, Q Q = B and the singular value decomposition R Q = W s Z^T, the
factors E = R W and G = Q Z satisfy

    A = E E^T,   B = G G^T,   E^T G = diag(s),   T E = G,   T = G diag(1/s) G^T.

No other factors are closer: |E - G|^2 is the squared Bures distance. Nothing here
squares a condition number, and the distance is a sum of squares, so it does not
cancel when A and B are close. Singular values that are zero to rounding count as
zero, which gives the pseudo-inverse.

Derivatives are those of the equation, Y A T + T A Y = dB - T dA T, solved with the
same factors; no decomposition is differentiated.
Source: Bhatia, Jain and Lim (2019); the factors: orthogonal Procrustes problem.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.gaussian.matrix_sqrt import clipped_root, resolution
from jaxsns.linear import lapack
from jaxsns.numerics import matmul


class Factors(NamedTuple):
    """See the module. Constants for derivatives: they only serve to solve."""

    e: jax.Array  # [d, d]
    g: jax.Array  # [d, d]
    s: jax.Array  # [d] falling, >= 0

    def swapped(self) -> "Factors":
        """Factors of the pair (B, A)."""
        return Factors(self.g, self.e, self.s)

    def scaled(self) -> jax.Array:
        """[d, d] G diag(1/s), with 0 for unresolved s."""
        fine = ~(self.s <= resolution(self.g) * self.s[0])  # a NaN stays one
        return self.g * jnp.where(fine, 1 / jnp.where(fine, self.s, 1), 0)[None, :]


def singular(a: jax.Array):
    """W, s, Z of a matrix W s Z^T; s is NaN if the matrix is not finite."""
    finite = jnp.all(jnp.isfinite(a))
    w, s, zt = lapack.svd(jnp.where(finite, a, 0))
    return w, jnp.where(finite, s, jnp.nan), zt.T


def align(a: jax.Array, b: jax.Array) -> Factors:
    """Factors of two positive semidefinite matrices [d, d].

    Negative eigenvalues count as zero. Not differentiated: the arguments are cut
    off. Cost: two eigendecompositions and one singular value decomposition.
    """
    root_a = clipped_root(jax.lax.stop_gradient(a))
    root_b = clipped_root(jax.lax.stop_gradient(b))
    w, s, z = singular(matmul(root_a, root_b))
    return Factors(matmul(root_a, w), matmul(root_b, z), s)


@jax.custom_jvp
def solution(a: jax.Array, b: jax.Array, factors: Factors) -> jax.Array:
    """[d, d] T of T A T = B, from `align(a, b)`; differentiable in a and b."""
    return matmul(factors.scaled(), factors.g.T)


@solution.defjvp
def _solution_jvp(primals, tangents):
    a, _, factors = primals
    da, db, _ = tangents
    t = solution(*primals)
    e, p = factors.e, factors.scaled()
    sums = factors.s[:, None] + factors.s[None, :]
    sums = jnp.where(sums > 0, sums, 1)  # p is zero there

    def product(y: jax.Array) -> jax.Array:
        return matmul(matmul(y, a), t) + matmul(matmul(t, a), y)

    def solve(_, rhs: jax.Array) -> jax.Array:
        inside = matmul(matmul(e.T, rhs), e) / sums
        return matmul(matmul(p, inside), p.T)

    def transposed_solve(_, rhs: jax.Array) -> jax.Array:
        inside = matmul(matmul(p.T, rhs), p) / sums
        return matmul(matmul(e, inside), e.T)

    rhs = db - matmul(matmul(t, da), t)
    return t, jax.lax.custom_linear_solve(product, rhs, solve, transposed_solve)


@jax.custom_jvp
def squared_distance(a: jax.Array, b: jax.Array, factors: Factors) -> jax.Array:
    """[] |E - G|^2 from `align(a, b)`; differentiable in a and b."""
    return jnp.sum((factors.e - factors.g) ** 2)


@squared_distance.defjvp
def _squared_distance_jvp(primals, tangents):
    a, b, factors = primals
    identity = jnp.eye(a.shape[0], dtype=a.dtype)
    slope_a = identity - solution(a, b, factors)
    slope_b = identity - solution(b, a, factors.swapped())
    change = jnp.sum(slope_a * tangents[0]) + jnp.sum(slope_b * tangents[1])
    return squared_distance(*primals), change
