"""The costs within one space, by what can be computed with them.

`Matrix` holds all entries; `LowRank` two factors; `Points` points whose squared
distances are the costs. What the outer iteration needs of them is a product with a
plan, and a product of the squared entries with masses.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns import hints
from jaxsns.geometry import Dense, Grid, PointCloud
from jaxsns.numerics import machine_epsilon, matmul
from jaxsns.problem.checks import is_traced
from jaxsns.problem.inputs import as_float, placed

ASYMMETRY = 100  # units of rounding, relative to the largest entry [D41]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Matrix:
    """A symmetric matrix of costs [n, n]."""

    cost: jax.Array

    @property
    def size(self) -> int:
        """Number of points."""
        return self.cost.shape[-1]

    def times(self, table: jax.Array) -> jax.Array:
        """[n, k] the costs times a table [n, k]."""
        return matmul(self.cost, table)

    def squares_times(self, masses: jax.Array) -> jax.Array:
        """[n] the squared costs times masses [n]."""
        return matmul(self.cost**2, masses)

    def entries(self) -> jax.Array:
        """[n, n]."""
        return self.cost


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LowRank:
    """Symmetric costs left @ right.T that are never formed.

    Attributes:
      left: [n, r] factor.
      right: [n, r] factor; left @ right.T must be symmetric.
    """

    left: jax.Array
    right: jax.Array

    __repr__ = hints.one_line

    @property
    def size(self) -> int:
        """Number of points."""
        return self.left.shape[-2]

    def times(self, table: jax.Array) -> jax.Array:
        """[n, k] the costs times a table [n, k]; O(n r k)."""
        return matmul(self.left, matmul(self.right.T, table))

    def squares_times(self, masses: jax.Array) -> jax.Array:
        """[n] the squared costs times masses [n]; O(n r^2)."""
        moments = matmul(self.right.T * masses[None, :], self.right)
        return jnp.sum(matmul(self.left, moments) * self.left, axis=1)

    def entries(self) -> jax.Array:
        """[n, n]."""
        return matmul(self.left, self.right.T)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("x",), meta_fields=("streamed",)
)
@dataclasses.dataclass(frozen=True)
class Points:
    """Points x [n, d] whose squared distances are the costs; streamed as asked for.

    A problem has them around their mean, those without mass in it.
    """

    x: jax.Array
    streamed: bool | None = None

    @property
    def size(self) -> int:
        """Number of points."""
        return self.x.shape[-2]

    def centred(self, masses: jax.Array) -> jax.Array:
        """[n, d] the points minus their mean by masses [n]."""
        mean = matmul(masses[None, :], self.x) / jnp.sum(masses)
        return self.x - mean

    def factors(self) -> LowRank:
        """Return the squared distances as a product of rank d + 2."""
        x = self.x  # around their mean
        squares = jnp.sum(x**2, axis=1, keepdims=True)
        one = jnp.ones_like(squares)
        left = jnp.concatenate([squares, one, -2 * x], axis=1)
        return LowRank(left, jnp.concatenate([one, squares, x], axis=1))

    def times(self, table: jax.Array) -> jax.Array:
        """[n, k] the costs times a table [n, k]; O(n d k)."""
        return self.factors().times(table)

    def squares_times(self, masses: jax.Array) -> jax.Array:
        """[n] the squared costs times masses [n]; O(n d^2)."""
        return self.factors().squares_times(masses)

    def entries(self) -> jax.Array:
        """[n, n]."""
        return PointCloud(self.x, self.x).dense().cost


Space = Matrix | LowRank | Points


def _matrix(name: str, value: Any) -> Matrix:
    cost = as_float(name, value)
    if cost.ndim != 2 or cost.shape[0] != cost.shape[1] or cost.shape[0] == 0:
        raise ValueError(
            f"{name} must be a square matrix [n, n] of the costs within one space; "
            f"got {cost.shape} (points: PointCloud(x, x))"
        )
    if not is_traced(cost):
        host = np.asarray(cost)
        if not np.isfinite(host).all():
            raise ValueError(f"{name} must be finite; got NaN or infinite entries")
        gap = np.abs(host - host.T).max()
        if gap > ASYMMETRY * machine_epsilon(cost.dtype) * np.abs(host).max():
            raise ValueError(
                f"{name} must be symmetric; its entries differ from those of its "
                f"transpose by up to {gap:.3g}"
            )
    return Matrix(cost)


def _cloud(name: str, cloud: PointCloud) -> Space:
    x, y = as_float(name, cloud.x), as_float(name, cloud.y)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(
            f"{name} must be PointCloud(x, x), the points of one space [n, d] twice; "
            f"got {x.shape} and {y.shape}"
        )
    if not is_traced(x, y) and not np.array_equal(np.asarray(x), np.asarray(y)):
        raise ValueError(f"{name} must be PointCloud(x, x): its points differ")
    if not is_traced(x) and not np.isfinite(np.asarray(x)).all():
        raise ValueError(f"{name} must be finite; got points that are not")
    if cloud.mesh is not None:
        raise ValueError(f"{name} must not be divided by mesh: that is not supported")
    if cloud.cost == "sqeuclidean" and cloud.factor is None:
        return Points(x, cloud.streamed)
    return _matrix(name, dataclasses.replace(cloud, x=x, y=x).dense().cost)


def _low_rank(name: str, left: jax.Array, right: jax.Array) -> LowRank:
    out = LowRank(left, right)
    if not is_traced(left, right):
        finite = np.isfinite(np.asarray(left)).all() and np.isfinite(right).all()
        if not finite:
            raise ValueError(f"{name} must be finite; got NaN or infinite factors")
        if not bool(_symmetric_product(out)):
            raise ValueError(
                f"{name} must be symmetric: left @ right.T differs from its transpose"
            )
    return out


def _symmetric_product(space: LowRank) -> jax.Array:
    """[] bool: the product with one vector is that of the transpose; O(n r)."""
    left, right = space.left, space.right
    probe = jnp.cos(jnp.arange(space.size, dtype=left.dtype) ** 2)[:, None]
    times = lambda u, v: matmul(u, matmul(v.T, probe))
    most = lambda x: jnp.max(jnp.linalg.norm(x, axis=1))
    size = most(left) * most(right) * jnp.sqrt(space.size)
    gap = jnp.abs(times(left, right) - times(right, left))
    return jnp.max(gap) <= ASYMMETRY * machine_epsilon(left.dtype) * size


def as_space(name: str, value: Any) -> Space:
    """Costs within one space from what users give; see `solve_quadratic`."""
    if isinstance(value, PointCloud):
        return _cloud(name, value)
    if isinstance(value, Grid):
        return _matrix(name, value.dense().cost)
    if isinstance(value, LowRank):
        left = as_float(f"{name}.left", value.left)
        right = as_float(f"{name}.right", value.right)
        if left.ndim != 2 or left.shape != right.shape or 0 in left.shape:
            raise ValueError(
                f"{name} must have factors of one shape [n, r]; got {left.shape} and "
                f"{right.shape}"
            )
        return _low_rank(name, left, right)
    return _matrix(name, value.cost if isinstance(value, Dense) else value)


def astype(space: Space, dtype: jnp.dtype) -> Space:
    """Return the same costs in another dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), space)


def around_mean(space: Space, masses: jax.Array) -> Space:
    """Points around the mean of those with mass; other costs as they are.

    Products of squares keep the digits of distances only there.
    """
    if not isinstance(space, Points):
        return space
    x = placed(space.x, masses)
    # It changes no distance, so it has no derivative.
    mean = jax.lax.stop_gradient(jnp.mean(x, axis=0, keepdims=True))
    return dataclasses.replace(space, x=x - mean)


def symmetric(space: Space) -> Space:
    """Return the costs with derivatives that are symmetric as well."""
    if isinstance(space, Matrix):
        return Matrix((space.cost + space.cost.T) / 2)
    return space


def fine(space: Space) -> jax.Array:
    """[] bool: all numbers are finite, and a matrix is symmetric."""
    finite = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(space)]
    out = jnp.all(jnp.asarray(finite))
    if isinstance(space, Matrix):
        gap = jnp.max(jnp.abs(space.cost - space.cost.T))
        largest = jnp.max(jnp.abs(space.cost))
        out &= gap <= ASYMMETRY * machine_epsilon(space.cost.dtype) * largest
    if isinstance(space, LowRank):
        out &= _symmetric_product(space)
    return out
