"""Square root of a symmetric positive semidefinite matrix, safe to differentiate.

The derivative X of the root S of A solves the Lyapunov equation S X + X S = dA: in
the eigenbasis it is dA_ij / (s_i + s_j), the divided difference of Daleckii and
Krein. It has no difference of eigenvalues, so equal ones need no care, and the
eigenvectors themselves are never differentiated.

An eigenvalue below `resolution` times the largest cannot be told from zero. Where
two such meet, the derivative (infinite at zero) is taken as zero. It thus stays
bounded, and exact on everything the dtype resolves.
Source: Daleckii and Krein (1965); Bhatia, Jain and Lim, Expositiones Mathematicae 37
(2019), section 3.
"""

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear import lapack
from jaxsns.linear.powers import half_exponent, shifted
from jaxsns.numerics import machine_epsilon, matmul


def symmetric_part(a: jax.Array) -> jax.Array:
    """[..., d, d] mean of a matrix and its transpose."""
    return a / 2 + a.mT / 2  # in this order it does not overflow


def resolution(a: jax.Array) -> float:
    """Relative size, d times the roundoff, below which an eigenvalue is noise."""
    return a.shape[-1] * machine_epsilon(a.dtype)


def spectrum(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues [..., d], rising, and vectors [..., d, d]; NaN if a is not finite.

    Not to be differentiated. LAPACK is never given a NaN: some builds hang on it. It
    gets entries of size 1: the same digits whatever the unit of `a` is.
    """
    finite = jnp.all(jnp.isfinite(a), axis=(-2, -1), keepdims=True)
    unit = 2 * half_exponent(a, (-2, -1))
    a = jnp.where(finite, shifted(a, -unit[..., None, None]), 0)
    values, vectors = lapack.eigh(a)
    values = shifted(values, unit[..., None])
    return jnp.where(finite[..., 0], values, jnp.nan), vectors


def in_basis(vectors: jax.Array, values: jax.Array) -> jax.Array:
    """[..., d, d] V diag(values) V^T."""
    return matmul(vectors * values[..., None, :], vectors.mT)


def clipped_root(a: jax.Array) -> jax.Array:
    """[..., d, d] root with unresolved and negative eigenvalues set to zero.

    For algorithms, not for users: no derivative, no complaint.
    """
    values, vectors = spectrum(a)
    noise = values <= resolution(a) * values[..., -1:]
    return in_basis(vectors, jnp.sqrt(jnp.where(noise, 0, values)))


def _inverse_sums(values: jax.Array, floor: jax.Array) -> jax.Array:
    """[..., d, d] 1 / (x_i + x_j), and 0 where both are at most the floor."""
    sums = values[..., :, None] + values[..., None, :]
    fine = ~(sums <= 2 * floor[..., None])  # a NaN stays one
    return jnp.where(fine, 1 / jnp.where(fine, sums, 1), 0)


def _solve(
    a: jax.Array, c: jax.Array, vectors: jax.Array, inverse_sums: jax.Array
) -> jax.Array:
    def solve(_, rhs: jax.Array) -> jax.Array:
        inside = matmul(matmul(vectors.mT, rhs), vectors) * inverse_sums
        return matmul(matmul(vectors, inside), vectors.mT)

    # Derivatives of any order come from the product, which is plain arithmetic.
    product = lambda x: matmul(a, x) + matmul(x, a)
    return control.custom_linear_solve(product, c, solve, symmetric=True)


def lyapunov(a: jax.Array, c: jax.Array) -> jax.Array:
    """[..., d, d] solution X of A X + X A = C.

    Args:
      a: [..., d, d] positive semidefinite; only its symmetric part counts.
      c: [..., d, d]; X is symmetric if it is.

    Where two unresolved eigenvalues of `a` meet, X is zero (least squares). A NaN
    gives NaN. Differentiable in both to any order. Cost: one eigendecomposition.
    """
    a = symmetric_part(a)
    values, vectors = spectrum(jax.lax.stop_gradient(a))
    inverse_sums = _inverse_sums(values, resolution(a) * values[..., -1:])
    return _solve(a, c, vectors, inverse_sums)


@jax.custom_jvp
def _root(a: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Root, vectors and inverse sums; only the root has a derivative."""
    values, vectors = spectrum(a)
    largest = jnp.max(jnp.abs(values), axis=-1, keepdims=True)
    rounding = jnp.abs(values) <= 64 * resolution(a) * largest
    values = jnp.sqrt(jnp.where(rounding, jnp.maximum(values, 0), values))
    floor = (resolution(a) * largest) ** 0.5
    return in_basis(vectors, values), vectors, _inverse_sums(values, floor)


@_root.defjvp
def _root_jvp(primals, tangents):
    root, vectors, inverse_sums = _root(*primals)
    change = _solve(root, tangents[0], vectors, inverse_sums)
    rest = jnp.zeros_like(vectors), jnp.zeros_like(inverse_sums)
    return (root, vectors, inverse_sums), (change, *rest)


def sqrtm(a: jax.Array) -> jax.Array:
    """[..., d, d] symmetric positive semidefinite root of a matrix of that kind.

    Only the symmetric part of `a` counts, so gradients are symmetric. Negative
    eigenvalues of the size of rounding count as zero; larger ones, and a NaN, give
    NaN. Differentiable to any order, forward and reverse; at zero eigenvalues see
    the module. Cost: one eigendecomposition, O(d^3); a derivative six products more.
    """
    return _root(symmetric_part(a))[0]
