"""Closed forms between Gaussians; `jaxsns.gaussian` has conventions and sources."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.gaussian import covariances, matrix_sqrt, riccati
from jaxsns.gaussian.matrix_sqrt import symmetric_part
from jaxsns.linear.powers import half_exponent, shifted
from jaxsns.numerics import matmul


@jax.jit
def _bures(a: jax.Array, b: jax.Array, metric: jax.Array | None) -> jax.Array:
    _, a, b = covariances.whiten(metric, a, b)
    return riccati.squared_distance(a, b, riccati.align(a, b))


def bures(
    cov_a: ArrayLike, cov_b: ArrayLike, *, metric: ArrayLike | None = None
) -> jax.Array:
    """[] squared Bures distance, tr A + tr B - 2 tr (A^1/2 B A^1/2)^1/2.

    Args:
      cov_a: [d, d] covariance A.
      cov_b: [d, d] covariance B.
      metric: [d, d] or None, see `jaxsns.gaussian`.

    Computed as a sum of squares: never negative, and no digits are lost when A and B
    are close. Its gradient in A is I - T, T the `optimal_map`; zero at A = B.
    Raises, NaN: see `jaxsns.gaussian`. Cost: O(d^3), two eigendecompositions and one
    singular value decomposition, none more for derivatives.
    """
    a, b, metric = covariances.enter(cov_a=cov_a, cov_b=cov_b, metric=metric)
    return _bures(a, b, metric)


def squared_distance(
    mean_a: ArrayLike,
    cov_a: ArrayLike,
    mean_b: ArrayLike,
    cov_b: ArrayLike,
    *,
    metric: ArrayLike | None = None,
) -> jax.Array:
    """[] squared 2-Wasserstein distance of the Gaussians N(mean_a, A), N(mean_b, B).

    Args:
      mean_a: [d], unit u.
      cov_a: [d, d], unit u^2.
      mean_b: [d].
      cov_b: [d, d].
      metric: [d, d] or None, see `jaxsns.gaussian`.

    Raises, NaN, cost: as for `bures`. Source: Dowson and Landau (1982).
    """
    start, a, end, b, inner = covariances.enter(
        mean_a=mean_a, cov_a=cov_a, mean_b=mean_b, cov_b=cov_b, metric=metric
    )
    factor, *_ = covariances.whiten(inner)
    shift = covariances.divide(factor, (start - end)[:, None])
    return jnp.sum(shift**2) + _bures(a, b, inner)


@jax.jit
def _optimal_map(a: jax.Array, b: jax.Array, metric: jax.Array | None) -> jax.Array:
    factor, a, b = covariances.whiten(metric, a, b)
    matrix = riccati.solution(a, b, riccati.align(a, b))
    if factor is None:
        return symmetric_part(matrix)
    rows = matmul(factor, matrix).T  # L T L^-1, by a solve with L^T
    return jax.scipy.linalg.solve_triangular(factor, rows, trans=1, lower=True).T


def optimal_map(
    cov_a: ArrayLike, cov_b: ArrayLike, *, metric: ArrayLike | None = None
) -> jax.Array:
    """[d, d] matrix T of the optimal (Monge) map x -> T x of N(0, A) to N(0, B).

    Args:
      cov_a: [d, d] covariance A.
      cov_b: [d, d] covariance B.
      metric: [d, d] or None, see `jaxsns.gaussian`.

    T A T^T = B. Symmetric if there is no metric; in a metric it is symmetric in that
    inner product. Where A has no variance the map is not determined, and T is zero
    there; if B has some, T A T^T = B cannot hold. T has a relative error of about
    the roundoff times the condition of A. Raises, NaN, cost: as for `bures`.
    """
    a, b, metric = covariances.enter(cov_a=cov_a, cov_b=cov_b, metric=metric)
    return _optimal_map(a, b, metric)


def affine_map(
    mean_a: ArrayLike,
    cov_a: ArrayLike,
    mean_b: ArrayLike,
    cov_b: ArrayLike,
    *,
    metric: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Matrix T [d, d] and offset c [d] of the optimal map x -> T x + c.

    It takes N(mean_a, A) to N(mean_b, B). Arguments, failures and cost: as for
    `squared_distance` and `optimal_map`.
    """
    start, a, end, b, inner = covariances.enter(
        mean_a=mean_a, cov_a=cov_a, mean_b=mean_b, cov_b=cov_b, metric=metric
    )
    matrix = _optimal_map(a, b, inner)
    return matrix, end - matmul(matrix, start)


@jax.jit
def _logarithm(base: jax.Array, cov: jax.Array, metric: jax.Array | None) -> jax.Array:
    factor, a, b = covariances.whiten(metric, base, cov)
    half = riccati.cross(a, b, riccati.align(a, b)) - a
    return covariances.colour(factor, half + half.T)


def logarithm(
    base: ArrayLike, cov: ArrayLike, *, metric: ArrayLike | None = None
) -> jax.Array:
    """[d, d] tangent at `base` of the geodesic that reaches `cov` at t = 1.

    Args:
      base: [d, d] covariance G, positive definite.
      cov: [d, d] covariance X.
      metric: [d, d] or None, see `jaxsns.gaussian`.

    (G X)^1/2 + (X G)^1/2 - 2 G = G T + T G - 2 G with the `optimal_map` T.
    Raises, NaN, cost: as for `bures`. Source: arXiv 2504.00660.
    """
    base, cov, metric = covariances.enter(base=base, cov=cov, metric=metric)
    return _logarithm(base, cov, metric)


def _end(a: jax.Array, v: jax.Array) -> jax.Array:
    root = jnp.eye(len(a), dtype=a.dtype) + matrix_sqrt.lyapunov(a, v)
    return symmetric_part(matmul(matmul(root, a), root.T))


@jax.custom_jvp
def _end_in_units(a: jax.Array, v: jax.Array) -> jax.Array:
    """[d, d] `_end`, computed in units of a; its derivative does not have any."""
    unit = 2 * half_exponent(a)
    return shifted(_end(shifted(a, -unit), shifted(v, -unit)), unit)


@_end_in_units.defjvp
def _end_in_units_jvp(primals, tangents):
    unit = 2 * half_exponent(primals[0])
    points = [shifted(x, -unit) for x in primals]
    return _end_in_units(*primals), jax.jvp(_end, points, list(tangents))[1]


@jax.jit
def _exponential(base: jax.Array, tangent: jax.Array, metric: jax.Array | None):
    factor, a, v = covariances.whiten(metric, base, tangent)
    return covariances.colour(factor, _end_in_units(a, v))


def exponential(
    base: ArrayLike, tangent: ArrayLike, *, metric: ArrayLike | None = None
) -> jax.Array:
    """[d, d] end at t = 1 of the geodesic from `base` along `tangent`.

    Args:
      base: [d, d] covariance G, positive definite.
      tangent: [d, d] symmetric V.
      metric: [d, d] or None, see `jaxsns.gaussian`.

    (I + L) G (I + L) with G L + L G = V: always positive semidefinite. It inverts
    `logarithm` while I + L is positive definite; beyond, the curve is not shortest.
    Raises, NaN: as for `bures`. Cost: one eigendecomposition.
    """
    base, tangent, metric = covariances.enter(base=base, tangent=tangent, metric=metric)
    return _exponential(base, tangent, metric)


@jax.jit
def _geodesic(a: jax.Array, b: jax.Array, t: jax.Array, metric: jax.Array | None):
    factor, x, y = covariances.whiten(metric, a, b)
    cross = riccati.cross(x, y, riccati.align(x, y))
    cross = covariances.colour(factor, cross + cross.T)
    return (1 - t) ** 2 * a + t**2 * b + t * (1 - t) * cross


def geodesic(
    cov_a: ArrayLike, cov_b: ArrayLike, t: ArrayLike, *, metric: ArrayLike | None = None
) -> jax.Array:
    """[d, d] covariance at time t of McCann's interpolation of A and B.

    Args:
      cov_a: [d, d] covariance A, t = 0.
      cov_b: [d, d] covariance B, t = 1.
      t: [] time; the means move as (1 - t) mean_a + t mean_b.
      metric: [d, d] or None, see `jaxsns.gaussian`.

    (1 - t)^2 A + t^2 B + t (1 - t) (A T + T A), shortest for t in [0, 1]. Its
    distance from A is t times that of B. Raises, NaN, cost: as for `bures`.
    """
    a, b, t, metric = covariances.enter(cov_a=cov_a, cov_b=cov_b, t=t, metric=metric)
    return _geodesic(a, b, t, metric)
