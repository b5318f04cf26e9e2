"""What plans between spaces are used for: maps of new points, and matchings."""

from typing import Any

import jax
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike
from jaxsns.numerics import matmul
from jaxsns.plans.rounding import round_to_permutation
from jaxsns.problem.inputs import as_float
from jaxsns.quadratic.solution import QuadraticSolution
from jaxsns.quadratic.solve import solve_quadratic
from jaxsns.quadratic.spaces import as_space
from jaxsns.quadratic.terms import second_part


def quadratic_map(
    solution: QuadraticSolution,
    costs: ArrayLike,
    targets: ArrayLike,
    *,
    linear: ArrayLike | None = None,
) -> jax.Array:
    """Mean of where the plan would send new points of the first space.

        sum_j t_j p_j,   p = softmax_j((g_j - C_j) / epsilon)

    with C the row that a new point without mass has in the linearised cost. At a point
    of the first space it is `solution.barycentric(targets)`.

    Args:
      solution: balanced, with the square loss, of one problem.
      costs: [k, n] costs from k new points to those of the first space.
      targets: [m, d] numbers of the points of the second space.
      linear: [k, m] costs from the new points to the second space, if the problem was
        fused.

    Returns:
      [k, d]; differentiable in all, NaN if the potentials are.

    Raises:
      ValueError: a wrong shape, or a solution that is not of that kind.

    Cost: two products of the plan and of the second space with k vectors.
    """
    terms = solution.terms
    if solution.f.ndim != 1 or terms.loss != "square" or not terms.balanced:
        raise ValueError("solution must be of one balanced problem with loss='square'")
    n, m = terms.masses.shape
    costs = as_float("costs", costs).astype(solution.f.dtype)
    targets = as_float("targets", targets).astype(solution.f.dtype)
    if costs.ndim != 2 or costs.shape[1] != n:
        raise ValueError(
            f"costs must have shape [k, n] with n = {n}; got {costs.shape}"
        )
    if targets.ndim != 2 or targets.shape[0] != m:
        raise ValueError(
            f"targets must have shape [m, d] with m = {m}; got {targets.shape}"
        )
    if (linear is None) != terms.pure:
        raise ValueError("linear must be given if, and only if, the problem was fused")
    columns = second_part(terms, terms.masses.b)
    crossed = terms.y.times(solution.apply(costs.T, axis=0)).T
    row = 2 * terms.alpha * (columns[None, :] - 2 * crossed)
    if linear is not None:
        extra = as_float("linear", linear).astype(row.dtype)
        if extra.shape != row.shape:
            raise ValueError(
                f"linear must have shape [k, m] = {list(row.shape)}; got {extra.shape}"
            )
        row += (1 - terms.alpha) * extra
    weights = jax.nn.softmax((solution.g[None, :] - row) / solution.epsilon, axis=1)
    return matmul(weights, targets)


@hints.answered
def match_graphs(
    x: CostLike, y: CostLike, *, epsilon: ArrayLike, **options: Any
) -> tuple[jax.Array, QuadraticSolution]:
    """Match the nodes of two graphs of one size one to one.

    Args:
      x: costs within the first graph, [n, n]: adjacency, distances or a kernel.
      y: costs within the second, [n, n].
      epsilon: [] regularisation; a small one leaves less to round.
      **options: linear (costs of nodes by their features), alpha, init and so on, as in
        `solve_quadratic`.

    Returns:
      ([n] int32 the node of y of each node of x, the solution). The permutation has
      the most mass of the plan on it; it has no derivative.

    Raises:
      ValueError: graphs of different sizes, and as `solve_quadratic`.

    Cost: that of `solve_quadratic`, and O(n^3) for the rounding.
    """
    n, m = as_space("x", x).size, as_space("y", y).size
    if n != m:
        raise ValueError(f"x and y must be graphs of one size; got {n} and {m} nodes")
    solution = solve_quadratic(x, y, epsilon=epsilon, **options)
    return round_to_permutation(solution.plan()), solution
