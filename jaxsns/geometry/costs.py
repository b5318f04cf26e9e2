"""Cost functions of two points, and the cost matrix of two point clouds.

Each named cost has a derivative at coinciding points: where the true one does not
exist (a norm at zero), it is zero, the subgradient of least norm.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import blocks
from jaxsns.numerics import matmul

CostFunction = Callable[[jax.Array, jax.Array], jax.Array]

BLOCK = 1 << 20  # numbers that exist at a time where a pair takes several of them [D26]
# [D26]
FUSED = 4  # numbers a pair up to which they are never stored, and rows need no blocks
DIFFERENCES = 32  # coordinates up to which products save distances no time [D27]
NEAR = 1 / 64  # of |x|^2 + |y|^2: below it products leave squares too few digits [D27]


def safe_power(x: jax.Array, exponent: float | jax.Array) -> jax.Array:
    """`x ** exponent` for x >= 0 with derivative 0 at x = 0."""
    positive = x > 0
    return jnp.where(positive, jnp.where(positive, x, 1) ** exponent, 0)


def _squares(x: jax.Array, y: jax.Array) -> jax.Array:
    """[...] squared distances of pairs of points [..., d]."""
    return jnp.sum((x - y) ** 2, axis=-1)


def _distances(x: jax.Array, y: jax.Array) -> jax.Array:
    return safe_power(_squares(x, y), 0.5)


def _absolute(x: jax.Array, y: jax.Array) -> jax.Array:
    change = x - y
    # JAX says that the derivative of abs at 0 is 1; the one of sign is 0 everywhere.
    return jnp.sum(jnp.sign(change) * change, axis=-1)


def _negative_products(x: jax.Array, y: jax.Array) -> jax.Array:
    return -jnp.sum(x * y, axis=-1)


def _angles(x: jax.Array, y: jax.Array) -> jax.Array:
    return 1 - jnp.sum(_unit(x) * _unit(y), axis=-1)


def _unit(x: jax.Array) -> jax.Array:
    """[..., d] points at distance 1 from 0; 0 where they are 0."""
    return x * safe_power(jnp.sum(x**2, axis=-1, keepdims=True), -0.5)


def in_rows(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array,
    y: jax.Array,
    width: int,
) -> jax.Array:
    """[n, m] function(x, y), for some rows of x at a time if it takes much memory.

    width: numbers that a pair takes while its cost is made. At most `BLOCK` of them, or
    those of one row, exist at a time, in derivatives as well.
    """
    size = max(BLOCK // (y.shape[0] * width), 1)
    if width <= FUSED or size >= x.shape[0]:
        return function(x, y)
    return blocks.scan(lambda rows: ((), function(rows, y)), x, size)[1]


def _all_pairs(function: Callable[[jax.Array, jax.Array], jax.Array]):
    """Cost matrix function of a function of pairs of points [..., d]."""

    def some(x: jax.Array, y: jax.Array) -> jax.Array:
        return function(x[:, None, :], y[None, :, :])

    return lambda x, y: in_rows(some, x, y, x.shape[1])


def _centred(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both clouds moved by the mean of x; costs of differences stay what they are."""
    centre = jax.lax.stop_gradient(jnp.mean(x, axis=0, keepdims=True))
    return x - centre, y - centre


def _sizes(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] |x|^2 + |y|^2."""
    return jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1)[None, :]


def sqeuclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] squared distances; through one matrix product, never below zero.

    The clouds are first moved to their common mean: cancellation then costs
    digits relative to the extent of the clouds, not to their distance from 0.
    """
    x, y = _centred(x, y)
    if x.shape[1] <= 4:
        return _squares(x[:, None, :], y[None, :, :])
    return jnp.maximum(_sizes(x, y) - 2 * matmul(x, y.T), 0)


def euclidean(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] distances; O(n m) memory.

    In more than `DIFFERENCES` dimensions through a matrix product. Cancellation takes
    the digits of pairs that are near to each other. So the nearest point of a row is
    measured by differences, as it must be where a cloud meets itself; where a row has
    more points that near, all pairs are.
    """
    by_differences = _all_pairs(_distances)
    if x.shape[1] <= DIFFERENCES:
        return by_differences(x, y)
    u, v = _centred(x, y)
    sizes = _sizes(u, v)
    squares = sizes - 2 * matmul(u, v.T)
    near = jax.lax.stop_gradient(squares < NEAR * sizes)
    nearest = jnp.argmin(jax.lax.stop_gradient(squares), axis=1)
    own = jnp.arange(x.shape[0]), nearest
    squares = squares.at[own].set(_squares(u, v[nearest]))
    return control.cond(
        jnp.all(jnp.sum(near, axis=1) <= 1),
        lambda squares, *_: safe_power(squares, 0.5),
        lambda _, u, v: by_differences(u, v),
        squares,
        u,
        v,
    )


def l1(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] sums of absolute differences; `sign(0) = 0` as derivative."""
    return _all_pairs(_absolute)(x, y)


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] one minus the cosine of the angle; 1 where a point is zero."""
    return 1 - matmul(_unit(x), _unit(y).T)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] negative inner products -<x, y>.

    Half of "sqeuclidean" less |x|^2 and |y|^2, which no plan of equal marginals sees.
    """
    return -matmul(x, y.T)


@dataclasses.dataclass(frozen=True)
class PNorm:
    """What `pnorm` returns: a cost matrix function, equal for equal p; it pickles."""

    p: float
    is_matrix: ClassVar[bool] = True

    def pairs(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """[...] costs of pairs of points [..., d]."""
        powers = safe_power(jnp.abs(x - y), self.p)
        return safe_power(jnp.sum(powers, axis=-1), 1 / self.p)

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """[n, m] costs of x [n, d] against y [m, d]."""
        return _all_pairs(self.pairs)(x, y)


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
    "dot": dot,
}
PAIRS = {
    "sqeuclidean": _squares,
    "euclidean": _distances,
    "l1": _absolute,
    "cosine": _angles,
    "dot": _negative_products,
}


def matrix(cost: str | CostFunction, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n, m] costs of x [n, d] against y [m, d], by name or function of two points.

    A function may say in `width` how many numbers it makes of a pair; d if not.
    """
    if isinstance(cost, str):
        return NAMED[cost](x, y)
    if getattr(cost, "is_matrix", False):
        return cost(x, y)
    rows = jax.vmap(cost, in_axes=(None, 0))
    every = jax.vmap(rows, in_axes=(0, None))
    return in_rows(every, x, y, getattr(cost, "width", x.shape[1]))


def pairs(cost: str | CostFunction, x: jax.Array, y: jax.Array) -> jax.Array:
    """[r, k] costs of pairs of points [r, k, d], one of them perhaps [r, 1, d]."""
    if isinstance(cost, str):
        return PAIRS[cost](x, y)
    if isinstance(cost, PNorm):
        return cost.pairs(x, y)
    out = jax.vmap(lambda u, v: matrix(cost, u, v).reshape(-1))(x, y)
    return out.reshape(x.shape[0], math.prod((x.shape[1], y.shape[1])))


def reduced_sqeuclidean(
    f: jax.Array, x: jax.Array, y: jax.Array, weight: jax.Array
) -> jax.Array:
    """[m, n] f_i - weight |x_i - y_j|^2 for f [n]; one product of matrices.

    Norms and f are folded into it, around the mean of y: rounding is that of distances
    from there, small for the pairs that matter if y is a block of neighbours.
    """
    y, x = _centred(y, x)
    norm = f - weight * jnp.sum(x**2, axis=1)
    lift = -weight * jnp.sum(y**2, axis=1, keepdims=True)
    left = jnp.concatenate([2 * weight * y, lift, jnp.ones_like(lift)], axis=1)
    right = jnp.concatenate([x, jnp.ones_like(x[:, :1]), norm[:, None]], axis=1)
    return matmul(left, right.T)


def reduced_dot(
    f: jax.Array, x: jax.Array, y: jax.Array, weight: jax.Array
) -> jax.Array:
    """[m, n] f_i + weight <x_i, y_j> for f [n]; one product of matrices."""
    left = jnp.concatenate([weight * y, jnp.ones_like(y[:, :1])], axis=1)
    return matmul(left, jnp.concatenate([x, f[:, None]], axis=1).T)


def reduced_cosine(
    f: jax.Array, x: jax.Array, y: jax.Array, weight: jax.Array
) -> jax.Array:
    """[m, n] f_i - weight c(x_i, y_j) for f [n]; one product of matrices."""
    return reduced_dot(f - weight, _unit(x), _unit(y), weight)


REDUCED = {
    "sqeuclidean": reduced_sqeuclidean,
    "dot": reduced_dot,
    "cosine": reduced_cosine,
}
