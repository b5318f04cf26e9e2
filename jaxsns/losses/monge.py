"""The Monge gap: how far a map is from moving its points at least cost."""

from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import PointCloud, costs
from jaxsns.geometry.costs import CostFunction
from jaxsns.problem import arguments
from jaxsns.problem.inputs import make_problem
from jaxsns.solver import solve


@hints.answered
def monge_gap(
    x: ArrayLike,
    mapped: ArrayLike,
    a: ArrayLike | None = None,
    *,
    cost: str | CostFunction = "sqeuclidean",
    epsilon: ArrayLike | None = None,
    relative_to: str | None = None,
    return_solution: bool = False,
    **options: Any,
):
    """Excess cost of a map over optimal transport to the same points.

        sum_i a_i c(x_i, T(x_i)) - min_P { <C, P> + epsilon sum P log(P / total) }

    C holds the costs from x to the mapped points, all of them, and P has the marginals
    a. As a penalty on a network it makes the network a transport map for the cost c.

    Args:
      x: [n, d] points.
      mapped: [n, d] their images T(x), usually of a network.
      a: [n] masses >= 0; uniform with total 1 if None.
      cost: of two points, as in `PointCloud`.
      epsilon: [] regularisation > 0, in units of cost; None: 0.05 of the standard
        deviation of the costs.
      relative_to: epsilon is a multiple of this scale, as in `solve`.
      return_solution: return (gap, `Solution`).
      **options: tolerance, method, max_steps as in `solve`.

    Returns:
      [] the gap, in cost times mass. It is at least epsilon times the entropy
      -sum a log a of the masses over a total of 1, since the plan of T itself is one of
      those compared; epsilon log n for uniform masses. That bound is reached for maps
      that are optimal, as epsilon falls. Differentiable in all inputs; the first
      derivative needs no linear solve. NaN as for `transport_loss`.

    Raises:
      TypeError, ValueError: as `solve`; x and mapped of different shapes.

    Cost: one solve of n x n.
    Source: Uscidda and Cuturi, "The Monge gap", ICML 2023. (OTT-JAX's `monge_gap`.)
    """
    if jnp.shape(x) != jnp.shape(mapped):
        raise ValueError(
            f"mapped must have the shape of x, {jnp.shape(x)}; got {jnp.shape(mapped)}"
        )
    cloud = PointCloud(cast(jax.Array, x), cast(jax.Array, mapped), cost)
    if "scale_cost" in options:
        raise TypeError("scale_cost is no option of monge_gap: give relative_to")
    problem = make_problem(cloud, a, a, epsilon=epsilon, relative_to=relative_to)
    solution = solve(problem, **options)
    geometry, mass = problem.geometry, problem.a
    pairs = costs.pairs(cost, geometry.x[:, None], geometry.y[:, None])[:, 0]
    paid = jnp.sum(mass * jnp.where(mass > 0, pairs, 0))
    total = jnp.sum(mass)
    # sum P (log P - 1) = sum P log(P / total) + total (log total - 1).
    moved = solution.value - problem.epsilon * total * (jnp.log(total) - 1)
    gap = arguments.nan_unless(arguments.usable(solution), paid - moved)
    return (gap, solution) if return_solution else gap
