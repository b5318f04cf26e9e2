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

from jaxsns import control
from jaxsns.gaussian.matrix_sqrt import clipped_root, resolution
from jaxsns.linear import lapack
from jaxsns.linear.powers import half_exponent, power_of_two, shifted
from jaxsns.numerics import matmul


class Factors(NamedTuple):
    """Factors of A / 4^a_unit and B / 4^b_unit, whose entries are of size 1.

    See the module. Constants for derivatives: they only serve to solve.
    """

    e: jax.Array  # [d, d]
    g: jax.Array  # [d, d]
    s: jax.Array  # [d] falling, >= 0
    a_unit: jax.Array  # [] int32
    b_unit: jax.Array  # [] int32

    def swapped(self) -> "Factors":
        """Factors of the pair (B, A)."""
        return Factors(self.g, self.e, self.s, self.b_unit, self.a_unit)

    def at_unit(self) -> "Factors":
        """The same factors, of matrices that are in these units already."""
        zero = jnp.zeros_like(self.a_unit)
        return self._replace(a_unit=zero, b_unit=zero)

    def scaled(self) -> jax.Array:
        """[d, d] G diag(1/s), with 0 for unresolved s."""
        fine = ~(self.s <= resolution(self.g) * self.s[0])  # a NaN stays one
        return self.g * jnp.where(fine, 1 / jnp.where(fine, self.s, 1), 0)[None, :]

    def map(self) -> jax.Array:
        """[d, d] T between the matrices in their units."""
        return matmul(self.scaled(), self.g.T)


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
    a, b = jax.lax.stop_gradient((a, b))
    a_unit, b_unit = half_exponent(a), half_exponent(b)
    root_a = clipped_root(shifted(a, -2 * a_unit))
    root_b = clipped_root(shifted(b, -2 * b_unit))
    w, s, z = singular(matmul(root_a, root_b))
    return Factors(matmul(root_a, w), matmul(root_b, z), s, a_unit, b_unit)


@jax.custom_jvp
def solution(a: jax.Array, b: jax.Array, factors: Factors) -> jax.Array:
    """[d, d] T of T A T = B, from `align(a, b)`; differentiable in a and b."""
    return shifted(factors.map(), factors.b_unit - factors.a_unit)


@solution.defjvp
def _solution_jvp(primals, tangents):
    a, _, factors = primals
    da, db, _ = tangents
    t = solution(*primals)
    # In units of A and B nothing overflows that its result would not.
    i, j = factors.a_unit, factors.b_unit
    a, unit_t = shifted(a, -2 * i), shifted(t, i - j)
    da, db = shifted(da, j - 3 * i), shifted(db, -i - j)
    e, p = factors.e, factors.scaled()
    sums = factors.s[:, None] + factors.s[None, :]
    sums = jnp.where(sums > 0, sums, 1)  # p is zero there

    def product(y: jax.Array) -> jax.Array:
        return matmul(matmul(y, a), unit_t) + matmul(matmul(unit_t, a), y)

    # Linear in the right side, which may have any size: in units of it.
    def solve(_, rhs: jax.Array) -> jax.Array:
        unit = power_of_two(rhs)
        inside = matmul(matmul(e.T, rhs / unit), e) / sums
        return matmul(matmul(p, inside), p.T) * unit

    def transposed_solve(_, rhs: jax.Array) -> jax.Array:
        unit = power_of_two(rhs)
        inside = matmul(matmul(p.T, rhs / unit), p) / sums
        return matmul(matmul(e, inside), e.T) * unit

    rhs = db - matmul(matmul(unit_t, da), unit_t)
    return t, control.custom_linear_solve(product, rhs, solve, transposed_solve)


@jax.custom_jvp
def cross(a: jax.Array, b: jax.Array, factors: Factors) -> jax.Array:
    """[d, d] A T, a root of A B, from `align(a, b)`; differentiable in a and b."""
    unit_a = shifted(a, -2 * factors.a_unit)
    return shifted(matmul(unit_a, factors.map()), factors.a_unit + factors.b_unit)


@cross.defjvp
def _cross_jvp(primals, tangents):
    a, b, factors = primals
    i, j = factors.a_unit, factors.b_unit
    known = factors.at_unit()
    at_unit = lambda a, b: matmul(a, solution(a, b, known))
    points = shifted(a, -2 * i), shifted(b, -2 * j)
    changes = shifted(tangents[0], j - i), shifted(tangents[1], i - j)
    return cross(*primals), jax.jvp(at_unit, points, changes)[1]


@jax.custom_jvp
def squared_distance(a: jax.Array, b: jax.Array, factors: Factors) -> jax.Array:
    """[] |E - G|^2 from `align(a, b)`; differentiable in a and b."""
    unit = jnp.maximum(factors.a_unit, factors.b_unit)
    e = shifted(factors.e, factors.a_unit - unit)
    g = shifted(factors.g, factors.b_unit - unit)
    return shifted(jnp.sum((e - g) ** 2), 2 * unit)


@squared_distance.defjvp
def _squared_distance_jvp(primals, tangents):
    a, b, factors = primals
    identity = jnp.eye(a.shape[0], dtype=a.dtype)
    slope_a = identity - solution(a, b, factors)
    slope_b = identity - solution(b, a, factors.swapped())
    change = jnp.sum(slope_a * tangents[0]) + jnp.sum(slope_b * tangents[1])
    return squared_distance(*primals), change
