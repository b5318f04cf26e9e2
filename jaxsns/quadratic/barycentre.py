"""Barycentre of spaces with fixed masses: costs that are nearest to those of K spaces.

    minimise  sum_k w_k GW(costs_k, C)  over C [m, m]; for plans P_k the best C is
    C = sum_k w_k P_k^T costs_k P_k / (b b^T)

Source: Peyre, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance
matrices" (ICML 2016), algorithm 1; POT's `gromov_barycenters`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import hints
from jaxsns.barycentres.fixed_support import as_measures
from jaxsns.numerics import matmul
from jaxsns.problem.inputs import as_float, require_positive
from jaxsns.quadratic.solve import solve_quadratic
from jaxsns.solvers import loop
from jaxsns.status import Status, code


class SpaceBarycentre(NamedTuple):
    """Costs of a barycentre of spaces.

    Attributes:
      cost: [m, m] costs within it.
      change: [] largest change of an entry in the last step, over the largest entry.
      status: [] int32, a `Status`.
      steps: [] int32 steps made: K quadratic problems each.
    """

    cost: jax.Array
    change: jax.Array
    status: jax.Array
    steps: jax.Array

    __repr__ = hints.one_line

    @property
    def converged(self) -> jax.Array:
        """[] bool: the change is at most the tolerance, and all plans converged."""
        return self.status == code(Status.CONVERGED)


def space_barycentre(
    costs: Any,
    masses: Any,
    start: Any,
    weights: Any = None,
    *,
    epsilon: Any,
    tolerance: Any = 1e-5,
    max_steps: Any = 100,
    **options: Any,
) -> SpaceBarycentre:
    """Costs of m points with equal masses that are nearest to K spaces.

    Args:
      costs: [K, n, n] symmetric costs within each; rows that fill up may be zero.
      masses: [K, n] masses >= 0 with total 1; zeros for padding.
      start: [m, m] symmetric costs to start from, which decide the order of the points
        of the barycentre. Start from costs that differ from point to point.
      weights: [K] >= 0, divided by their sum; equal if None.
      epsilon: [] regularisation > 0, in units of squared cost.
      tolerance: [] change at which to stop, relative to the largest entry.
      max_steps: [] limit of steps.
      **options: of `solve_quadratic`, e.g. init, inner_tolerance.

    Returns:
      The `SpaceBarycentre`. It carries no derivative: gradients through it are zero.

    Raises:
      TypeError, ValueError: wrong types, shapes, or known bad values.

    Status: MAX_STEPS, or that of a quadratic problem that failed.
    Cost: K quadratic problems a step.
    """
    masses, weights, epsilon = as_measures(masses, weights, epsilon)
    costs, start = as_float("costs", costs), as_float("start", start)
    if costs.ndim != 3 or costs.shape != (*masses.shape, masses.shape[1]):
        raise ValueError(
            f"costs must have shape [K, n, n] to match masses {masses.shape}; got "
            f"{costs.shape}"
        )
    if start.ndim != 2 or start.shape[0] != start.shape[1]:
        raise ValueError(f"start must have shape [m, m]; got {start.shape}")
    require_positive("tolerance", tolerance)
    require_positive("max_steps", max_steps)
    costs, masses, weights, start = jax.lax.stop_gradient(
        (costs, masses.astype(costs.dtype), weights, start.astype(costs.dtype))
    )
    weights = (weights / jnp.sum(weights)).astype(costs.dtype)
    size = start.shape[0]
    tolerance = jnp.asarray(tolerance, costs.dtype)

    def update(s: SpaceBarycentre) -> SpaceBarycentre:
        def one(given):
            cost, mass = given
            b = jnp.full((size,), 1 / size, cost.dtype) * jnp.sum(mass)
            out = solve_quadratic(cost, s.cost, mass, b, epsilon=epsilon, **options)
            plan = out.plan()
            columns = jnp.sum(plan, axis=0)
            moved = matmul(plan.T, matmul(cost, plan))
            return moved / (columns[:, None] * columns[None, :]), out.status

        moved, ends = jax.lax.map(one, (costs, masses))
        new = jnp.sum(weights[:, None, None] * moved, axis=0)
        new = (new + new.T) / 2
        change = jnp.max(jnp.abs(new - s.cost)) / jnp.max(jnp.abs(new))
        step = s.steps + 1
        status = loop.status_at(change, tolerance, step, max_steps, jnp.asarray(False))
        failed = jnp.max(jnp.where(ends == code(Status.CONVERGED), 0, ends))
        hopeless = (ends != code(Status.CONVERGED)) & (ends != code(Status.MAX_STEPS))
        settled = status == code(Status.CONVERGED)
        bad = jnp.any(hopeless) | (settled & (failed > 0))
        status = jnp.where(bad, failed, status)
        return SpaceBarycentre(new, change, loop.as_status(status), step)

    first = SpaceBarycentre(
        start,
        jnp.asarray(jnp.inf, costs.dtype),
        loop.as_status(code(Status.RUNNING)),
        jnp.asarray(0, jnp.int32),
    )
    return loop.run(update, first)
