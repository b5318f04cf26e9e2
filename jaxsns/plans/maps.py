"""Maps and potentials at points that were not part of the problem."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.geometry import PointCloud
from jaxsns.numerics import matmul
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float
from jaxsns.solution import Solution, one_solution, potentials


def _cloud(solution: Solution) -> PointCloud:
    geometry = solution.problem.geometry
    if not isinstance(geometry, PointCloud):
        raise TypeError(
            "solution must be of a PointCloud, whose cost of new points is known; "
            f"got {type(geometry).__name__}"
        )
    return geometry


def _check(solution: Any, points: Any, axis: int):
    solution = one_solution(solution)
    axis = arguments.as_axis(axis)
    dimension = _cloud(solution).x.shape[1]
    points = as_float("points", points).astype(solution.f.dtype)
    if points.ndim != 2 or points.shape[1] != dimension or points.shape[0] == 0:
        raise ValueError(
            f"points must have shape [k, d] with d = {dimension}; got {points.shape}"
        )
    arguments.holds(
        lambda xp, x: xp.all(xp.isfinite(x)),
        lambda: "points must be finite; got NaN or infinity",
        points,
    )
    return solution, points, axis


def _reduced(solution: Solution, points: jax.Array, axis: int) -> jax.Array:
    """[k, m] potential of the other side minus the cost of new points."""
    f, g = potentials(solution)
    if axis == 1:
        cost = dataclasses.replace(_cloud(solution), x=points).dense().cost
        return g[None, :] - cost
    cost = dataclasses.replace(_cloud(solution), y=points).dense().cost
    return f[None, :] - cost.T


@functools.partial(jax.jit, static_argnums=2)
def _map(solution: Solution, points: jax.Array, axis: int) -> jax.Array:
    targets = _cloud(solution).y if axis == 1 else _cloud(solution).x
    reduced = _reduced(solution, points, axis)
    weights = jax.nn.softmax(reduced / solution.problem.epsilon, axis=1)
    return matmul(weights, targets)


def transport_map(solution: Solution, points: Any, axis: int = 1) -> jax.Array:
    """Entropic map of new points: the mean of where the plan would send them.

        T(x) = sum_j y_j p_j(x),   p(x) = softmax_j((g_j - c(x, y_j)) / epsilon)

    At the points of the problem it is `solution.barycentric(y)`. For "sqeuclidean"
    it is x - grad f(x) / 2 with f of `c_transform`, the estimate of the Monge map by
    Pooladian and Niles-Weed; for any other cost it is the barycentric projection.

    Args:
      solution: of one problem with a `PointCloud`, any named cost or function.
      points: [k, d] new points on the side of x.
      axis: 1, or 0 to map points on the side of y to the x.

    Returns:
      [k, d] points within the convex hull of the y that have mass. Differentiable
      in the points and, through the potentials, in all that was solved for. NaN if
      potentials are; else as good as the solution, see its status.

    Raises:
      TypeError, ValueError: not a solution of one point cloud, a wrong shape or
        axis always; points that are not finite if they are not traced.

    Cost: O(k m d) time, O(k m) memory; use `jax.lax.map` over parts of many points.
    Source: Pooladian, Niles-Weed, "Entropic estimation of optimal transport maps",
      2021, equation 7; Seguy et al., ICLR 2018, for the projection.
    """
    solution, points, axis = _check(solution, points, axis)
    return _map(solution, points, axis)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _transform(solution: Solution, points: jax.Array, axis: int, hard: bool):
    reduced = _reduced(solution, points, axis)
    if hard:
        return -jnp.max(reduced, axis=1)
    epsilon = solution.problem.epsilon
    return -epsilon * jax.nn.logsumexp(reduced / epsilon, axis=1)


def c_transform(
    solution: Solution, points: Any, axis: int = 1, *, hard: bool = False
) -> jax.Array:
    """Potential at new points: the (soft) c-transform of the other potential.

        f(x) = -epsilon log sum_j exp((g_j - c(x, y_j)) / epsilon)

    In the convention of this library a potential holds the logarithm of its own
    mass, which a new point has not: at a point of the problem this is
    f_i - epsilon log a_i.

    Args:
      solution: of one problem with a `PointCloud`, any named cost or function.
      points: [k, d] new points on the side of x.
      axis: 1, or 0 for points on the side of y, through f.
      hard: min_j (c(x, y_j) - g_j) instead, the transform without entropy. With g
        it satisfies f(x) + g_j <= c(x, y_j), so <a, f(x)> + <b, g> at the points
        of the problem is a lower bound of the unregularised cost.

    Returns:
      [k] in units of cost. Differentiable as `transport_map` is; for "sqeuclidean"
      the gradient in x is 2 (x - T(x)). NaN if potentials are.

    Raises, cost: as `transport_map`.
    """
    solution, points, axis = _check(solution, points, axis)
    if not isinstance(hard, bool):
        raise TypeError(f"hard must be True or False; got {type(hard).__name__}")
    return _transform(solution, points, axis, hard)
