"""Maps and potentials at points that were not part of the problem."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry import PointCloud
from jaxsns.numerics import is_forbidden, masked, matmul, scaled_log_sum
from jaxsns.problem import arguments, dual
from jaxsns.problem.inputs import as_float
from jaxsns.solution import Solution, core_potentials, one_solution


def _cloud(solution: Solution) -> PointCloud:
    geometry = solution.problem.geometry
    if not isinstance(geometry, PointCloud):
        raise TypeError(
            "solution must come from a PointCloud: only then new points have a "
            f"cost; got {type(geometry).__name__}"
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


def _reduced(solution: Solution, points: jax.Array, axis: int):
    """[k, m] potential of the other side minus the cost of new points.

    And [k, m] bool, the pairs that count: finite stand-ins are where they do not; and
    [k] what these costs lack of those of the points.
    """
    cloud: Any = _cloud(solution)
    problem, f, g = core_potentials(solution)
    lacking = jnp.zeros_like(points[:, 0])
    centres = cloud.centres()
    if solution.reduced is not None and centres is not None:
        points = points - centres[0 if axis == 1 else 1][None]
        shift = solution.reduced.shift()
        lacking = cloud.offsets(points, axis) + (-shift if axis == 1 else shift)
        cloud = problem.geometry
    elif solution.reduced is not None:
        # A reduced matrix says nothing of new points: their costs are as they are.
        problem, f, g = solution.problem, solution.f, solution.g
        f, g = dual.finite(problem, f, g)
    if axis == 1:
        cost = dataclasses.replace(cloud, x=points).dense().entries
        potential, mass = g, problem.b
    else:
        cost = dataclasses.replace(cloud, y=points).dense().entries.T
        potential, mass = f, problem.a
    real = (mass > 0)[None, :] & ~is_forbidden(cost)
    return potential[None, :] - cost, real, lacking


@functools.partial(jax.jit, static_argnums=2)
def _map(solution: Solution, points: jax.Array, axis: int) -> jax.Array:
    targets = _cloud(solution).y if axis == 1 else _cloud(solution).x
    reduced, real, _ = _reduced(solution, points, axis)
    log = masked(reduced / solution.problem.epsilon, real)
    weights = jax.nn.softmax(log, axis=1)
    return matmul(weights, targets)


def transport_map(solution: Solution, points: ArrayLike, axis: int = 1) -> jax.Array:
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
      potentials are, or where a point may be paired with none of them; else as good
      as the solution, see its status.

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
    reduced, real, lacking = _reduced(solution, points, axis)
    if hard:
        return lacking - jnp.max(masked(reduced, real), axis=1)
    soft = lacking - scaled_log_sum(reduced, solution.problem.epsilon, 1)
    # A point that may be paired with none has no finite one.
    return jnp.where(jnp.any(real, axis=1) | jnp.isnan(soft), soft, jnp.inf)


def c_transform(
    solution: Solution, points: ArrayLike, axis: int = 1, *, hard: bool = False
) -> jax.Array:
    """Potential at new points: the (soft) c-transform of the other potential.

        f(x) = -epsilon log sum_j exp((g_j - c(x, y_j)) / epsilon)

    In this library a potential includes the logarithm of its own mass, and a new
    point has no mass. At a point of the problem this is f_i - epsilon log a_i.

    Args:
      solution: of one problem with a `PointCloud`, any named cost or function.
      points: [k, d] new points on the side of x.
      axis: 1, or 0 for points on the side of y, through f.
      hard: min_j (c(x, y_j) - g_j) instead, the transform without entropy. With g
        it satisfies f(x) + g_j <= c(x, y_j), so <a, f(x)> + <b, g> at the points
        of the problem is a lower bound of the unregularised cost.

    Returns:
      [k] in units of cost. Differentiable as `transport_map` is; for "sqeuclidean"
      the gradient in x is 2 (x - T(x)). NaN if potentials are; +inf where a point may
      be paired with none of the other side.

    Raises, cost: as `transport_map`.
    """
    solution, points, axis = _check(solution, points, axis)
    if not isinstance(hard, bool):
        raise TypeError(f"hard must be True or False; got {type(hard).__name__}")
    return _transform(solution, points, axis, hard)
