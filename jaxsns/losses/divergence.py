"""Debiased Sinkhorn divergence, balanced and unbalanced.

    S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2,   entropy relative to a b^T

It is zero for equal measures and positive otherwise where exp(-C / epsilon) is
positive definite. Sources: Genevay, Peyre, Cuturi (2018); Feydy et al. (2019);
Sejourne, Feydy, Vialard, Trouve, Peyre (2019) for unbalanced measures, whose term
epsilon (m(a) - m(b))^2 / 2 cancels against the masses of the reference measures.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import hints
from jaxsns.geometry import Dense, PointCloud
from jaxsns.geometry.costs import CostFunction
from jaxsns.numerics import forbidden_cost, safe_log
from jaxsns.problem.inputs import make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solution import Solution
from jaxsns.solver import solve
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Divergence:
    """The value and the three solutions behind it.

    Attributes:
      value: [] in cost times mass; its derivatives of every order are implicit.
      ab: transport of a to b.
      aa: transport of a to itself.
      bb: transport of b to itself.
    """

    value: jax.Array
    ab: Solution
    aa: Solution
    bb: Solution

    @property
    def converged(self) -> jax.Array:
        """[] bool: all three converged."""
        done = code(Status.CONVERGED)
        return (
            (self.ab.status == done)
            & (self.aa.status == done)
            & (self.bb.status == done)
        )

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    def __repr__(self) -> str:
        """Say the value and how the three solves went."""
        parts = zip(("ab", "aa", "bb"), (self.ab, self.aa, self.bb), strict=True)
        lines = "\n".join(f"{name}: {solution!r}" for name, solution in parts)
        return f"Divergence(value={self.value})\n{lines}"

    def raise_if_failed(self) -> "Divergence":
        """Return self if all converged, else raise; outside `jit` only."""
        for solution in (self.ab, self.aa, self.bb):
            solution.raise_if_failed()
        return self


def _with_reference(problem: Problem) -> Problem:
    """Move log a and log b into the costs: the entropy is then relative to a b^T.

    Balanced values change by terms that cancel in the divergence; not so where the
    marginals of the plan are not a and b.
    """
    if problem.balanced:
        return problem
    far = forbidden_cost(problem.dtype)

    def less(mass):
        return jnp.where(mass > 0, -problem.epsilon * safe_log(mass), far)

    rows, columns = less(problem.a)[:, None], less(problem.b)[None, :]
    cost = jnp.minimum(problem.geometry.dense().entries + rows + columns, far)
    return dataclasses.replace(problem, geometry=Dense(cost))


@hints.answered
def sinkhorn_divergence(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    cost: str | CostFunction = "sqeuclidean",
    epsilon: Any = None,
    rho: Any = None,
    relative_to: str | None = None,
    **options: Any,
) -> Divergence:
    """Divergence of two weighted point clouds.

    Args:
      x: [n, d] points.
      y: [m, d] points.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0; the same total unless rho is given.
      cost: a symmetric cost of two points, as in `PointCloud`.
      epsilon: [] regularisation > 0, one for the three problems; None: 0.05 of the
        standard deviation of the costs between x and y.
      rho: [] weight > 0 of KL penalties of both marginals, in units of cost;
        infinite or None: balanced.
      relative_to: epsilon is a multiple of this scale of the costs between x and y.
      **options: tolerance, method, max_steps as in `solve`; the method is that of the
        transport of a to b, the other two are symmetric.

    Returns:
      The `Divergence`; look at `.converged`. Differentiable in x, y, a, b, epsilon
      and rho, to any order.

    Raises:
      TypeError, ValueError: as `make_problem`; a rho that is no scalar.

    Cost: one solve and two of a few passes with a product a step.
    """
    if rho is not None and jnp.shape(rho) != ():
        raise ValueError(f"rho must be a scalar; got shape {jnp.shape(rho)}")
    problem = make_problem(
        PointCloud(x, y, cost),
        a,
        b,
        epsilon=epsilon,
        rho_a=rho,
        rho_b=rho,
        relative_to=relative_to,
    )
    cloud = problem.geometry
    assert isinstance(cloud, PointCloud)

    def itself(points, mass, weight):
        geometry = dataclasses.replace(cloud, x=points, y=points)
        return Problem(geometry, mass, mass, problem.epsilon, weight, weight)

    own = {k: v for k, v in options.items() if k in ("tolerance", "max_steps")}
    ab = solve(_with_reference(problem), **options)
    aa = solve(
        _with_reference(itself(cloud.x, problem.a, problem.rho_a)),
        method="symmetric",
        **own,
    )
    bb = solve(
        _with_reference(itself(cloud.y, problem.b, problem.rho_b)),
        method="symmetric",
        **own,
    )
    value = ab.value - 0.5 * (aa.value + bb.value)
    return Divergence(value, ab, aa, bb)
