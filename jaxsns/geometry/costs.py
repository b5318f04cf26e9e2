"""Cost functions of two points, and the cost matrix of two point clouds.

Each named cost has a derivative at coinciding points: where the true one does not
exist (a norm at zero), it is zero, the subgradient of least norm.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsns.numerics import matmul

CostFunction = Callable[[jax.Array, jax.Array], jax.Array]


def _difference(x: jax.Array, y: jax.Array) -> jax.Array:
    return x[:, None, :] - y[None, :, :]


def safe_power(x: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """`x ** exponent` for x >= 0 with derivative 0 at x = 0."""
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1) ** exponent, 0)


def sqeuclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] squared distances; through one matrix product, never below zero.

    The clouds are first moved to their common mean: cancellation then costs
    digits relative to the extent of the clouds, not to their distance from 0.
    """
    centre = jax.lax.stop_gradient(jnp.mean(x, axis=0, keepdims=True))
    x, y = x - centre, y - centre
    if x.shape[1] <= 4:
        return jnp.sum(_difference(x, y) ** 2, axis=-1)
    squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :]
    return jnp.maximum(squares - 2 * matmul(x, y.T), 0)


def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] distances; O(n m d) memory while it is built."""
    return safe_power(jnp.sum(_difference(x, y) ** 2, axis=-1), 0.5)


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] sums of absolute differences; `sign(0) = 0` as derivative."""
    return jnp.sum(jnp.abs(_difference(x, y)), axis=-1)


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] one minus the cosine of the angle; 1 where a point is zero."""

    def unit(v):
        inverse = safe_power(jnp.sum(v**2, axis=1, keepdims=True), -0.5)
        return v * inverse

    return 1 - matmul(unit(x), unit(y).T)


@dataclasses.dataclass(frozen=True)
class PNorm:
    """What `pnorm` returns: a cost matrix function, equal for equal p; it pickles."""

    p: float
    is_matrix: ClassVar[bool] = True

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """[n, m] costs of x [n, d] against y [m, d]."""
        powers = safe_power(jnp.abs(_difference(x, y)), self.p)
        return safe_power(jnp.sum(powers, axis=-1), 1 / self.p)


@functools.cache
def pnorm(p: float) -> PNorm:
    """Cost `(sum_k |x_k - y_k|^p)^(1/p)` for a p >= 1, as an argument of PointCloud.

    The result is a cost *matrix* function, like the named costs; the same p gives
    the same function, so that nothing compiles again.
    """
    if not p >= 1:
        raise ValueError(f"p of pnorm must be at least 1; got {p}")
    return PNorm(p)


NAMED = {
    "sqeuclidean": sqeuclidean,
    "euclidean": euclidean,
    "l1": l1,
    "cosine": cosine,
}


def matrix(cost: str | CostFunction, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] costs of x [n, d] against y [m, d], by name or function of two points."""
    if isinstance(cost, str):
        return NAMED[cost](x, y)
    if getattr(cost, "is_matrix", False) or cost in NAMED.values():
        return cost(x, y)
    rows = jax.vmap(cost, in_axes=(None, 0))
    return jax.vmap(rows, in_axes=(0, None))(x, y)


@functools.cache
def exchanged(cost: str | CostFunction) -> str | CostFunction:
    """Return the cost with its two points exchanged; the same for the same cost."""
    if isinstance(cost, str):
        return cost
    if getattr(cost, "is_matrix", False) or cost in NAMED.values():

        def other(x, y):
            return cost(y, x).T

        other.is_matrix = True  # type: ignore[attr-defined]
        return other
    return lambda u, v: cost(v, u)


def reduced_sqeuclidean(
    f: jax.Array, x: jax.Array, y: jax.Array, weight: jax.Array
) -> jax.Array:
    """[m, n] f_i - weight |x_i - y_j|^2 for f [n]; one product of matrices.

    Norms and f are folded into it, around the mean of y: rounding is that of distances
    from there, small for the pairs that matter if y is a block of neighbours.
    """
    centre = jax.lax.stop_gradient(jnp.mean(y, axis=0, keepdims=True))
    x, y = x - centre, y - centre
    norm = f - weight * jnp.sum(x**2, axis=1)
    lift = -weight * jnp.sum(y**2, axis=1, keepdims=True)
    left = jnp.concatenate([2 * weight * y, lift, jnp.ones_like(lift)], axis=1)
    right = jnp.concatenate([x, jnp.ones_like(x[:, :1]), norm[:, None]], axis=1)
    return matmul(left, right.T)
