"""`solve_low_rank`: a plan of full rank, and clusters of the pairs that it matches.

P = Q diag(1 / g) R^T. A row has one cluster: Q = diag(a) Z for labels Z. A column has a
share of the clusters of the rows that send to it: R = P^T Z for the plan of full rank.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, PointCloud
from jaxsns.low_rank import clustering
from jaxsns.low_rank.clustering import Pairs
from jaxsns.low_rank.solution import LowRankSolution, inverse
from jaxsns.numerics import matmul
from jaxsns.plans.rounding import to_feasible
from jaxsns.problem import arguments
from jaxsns.problem.inputs import make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solution import Solution
from jaxsns.solver import solve
from jaxsns.solvers.batched import vmap
from jaxsns.status import Status, code

EPSILON = 0.01  # of the standard deviation of the costs: of the plan of full rank [D64]
STARTS = 4  # of the clustering [D64]

Factors = tuple[jax.Array, jax.Array, jax.Array]  # q [n, r], r [m, r], g [r]


def _cost_factors(geometry: Any) -> tuple[jax.Array, jax.Array | None]:
    """L [n, q] and M [m, q] of the costs L M^T; None for the identity."""
    named = isinstance(geometry, PointCloud) and isinstance(geometry.cost, str)
    if not named or geometry.cost not in ("sqeuclidean", "dot"):
        return geometry.dense().cost, None
    factor = 1.0 if geometry.factor is None else geometry.factor
    x, y = geometry.x, geometry.y
    if geometry.cost == "dot":
        return -factor * x, y
    # Around a point between the clouds: squares of far points would take the digits.
    middle = jax.lax.stop_gradient(jnp.mean(x, axis=0) + jnp.mean(y, axis=0)) / 2
    x, y = x - middle[None], y - middle[None]
    rows = jnp.sum(x**2, axis=1, keepdims=True)
    columns = jnp.sum(y**2, axis=1, keepdims=True)
    left = jnp.concatenate([rows, jnp.ones_like(rows), -2 * x], axis=1)
    right = jnp.concatenate([jnp.ones_like(columns), columns, y], axis=1)
    return factor * left, right


def _times(right: jax.Array | None, table: jax.Array) -> jax.Array:
    """M^T times a table [m, r]."""
    return table if right is None else matmul(right.T, table)


def _cost(left: jax.Array, right: jax.Array | None, factors: Factors) -> jax.Array:
    q, r, g = factors
    return jnp.sum(matmul(left.T, q) * _times(right, r) * inverse(g)[None, :])


@jax.jit
def _value(geometry: Any, factors: Factors) -> jax.Array:
    return _cost(*_cost_factors(geometry), factors)


def _from_labels(solution: Solution, labels: jax.Array, rank: int) -> Factors:
    a, b = solution.problem.a, solution.problem.b
    members = jax.nn.one_hot(labels, rank, dtype=a.dtype)
    q = a[:, None] * members
    g = jnp.sum(q, axis=0)
    # The plan misses its marginals by its error, the factors by rounding only.
    return q, to_feasible(solution.apply(members, axis=0), b, g), g


@hints.answered
def solve_low_rank(
    cost: CostLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    rank: int,
    epsilon: ArrayLike | None = None,
    relative_to: str | None = None,
    key: jax.Array | None = None,
    **options: Any,
) -> LowRankSolution:
    """Transport by a plan of rank at most `rank`, with factors.

        minimise <C, P>  over  P = Q diag(1 / g) R^T
        with  Q 1 = a,  R 1 = b,  Q^T 1 = R^T 1 = g

    The problem is not convex: what is returned is near a local minimum. It is made of
    the plan of full rank, and its cost comes near that of this plan as the rank grows.

    Args:
      cost: [n, m] finite costs, or a geometry; a `PointCloud` of squared distances or
        products is never stored if a solve of it would not store it.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0 of the same total.
      rank: columns of Q and R, from 1 on; static.
      epsilon: [] regularisation of the plan of full rank, in units of cost; None: 0.01
        of the standard deviation of the costs. Smaller gives a lower cost.
      relative_to: epsilon is a multiple of a scale of the costs, as in `solve`.
      key: a key of `jax.random` for the starts of the clustering; `key(0)` if None.
      **options: tolerance, method, max_steps of the plan of full rank, as in `solve`.

    Returns:
      The `LowRankSolution`. `value` has derivatives with factors held fixed; those of
      the factors are 0.

    Raises:
      TypeError, ValueError: as `solve`; a rank that is no integer above 0; costs that
        are not finite if they are not traced.

    Status: that of the plan of full rank. Where it did not converge, factors are those
      of the best plan found. INVALID_INPUT, MASS_MISMATCH and NONFINITE come with NaN;
      traced costs that are not finite are INVALID_INPUT.
    Cost: one solve, and O((n + m) r d) a step of the clustering for points, O(n m r)
      for a matrix.
    Source: transport clustering, arXiv 2603.03578.

    Example:
      >>> solution = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), rank=10)
      >>> moved = solution.barycentric(y)
    """
    if epsilon is None:
        epsilon, relative_to = EPSILON, relative_to or "std"
    problem = make_problem(cost, a, b, epsilon=epsilon, relative_to=relative_to)
    rank = arguments.as_count("rank", rank)
    fine = _finite(problem)
    key = jax.random.key(0) if key is None else arguments.as_key("key", key)
    full = solve(problem, **options)
    stop = jax.lax.stop_gradient
    factors = _factors(stop(problem.geometry), stop(full), rank, key)
    # Factors of a plan that did not converge have the marginals all the same.
    known = fine & ~jnp.any(jnp.isnan(full.g))
    q, r, g = (arguments.nan_unless(known, x) for x in factors)
    value = _value(problem.geometry, (q, r, g))
    status = jnp.where(fine, full.status, code(Status.INVALID_INPUT))
    paid = stop(full.transport_cost)
    return LowRankSolution(q, r, g, value, paid, full.error, status)


def _finite(problem: Problem) -> jax.Array:
    geometry = problem.geometry
    if isinstance(geometry, PointCloud) and isinstance(geometry.cost, str):
        return jnp.asarray(True)  # of points that are not finite the solve tells
    return arguments.holds(
        lambda xp, c: xp.all(xp.isfinite(c)),
        lambda: "cost must be finite: a plan of low rank can forbid no pair",
        geometry.dense().cost,
    )


def _factors(geometry: Any, full: Solution, rank: int, key: jax.Array) -> Factors:
    return _factoring(rank)(geometry, full, key)


@functools.cache
def _factoring(rank: int):
    # With a rule of batching, since JAX's own fails for lanes along Explicit axes.
    return jax.jit(vmap.batched(functools.partial(_factor, rank), None))


def _factor(rank: int, geometry: Any, full: Solution, key: jax.Array) -> Factors:
    left, right = _cost_factors(geometry)
    a = full.problem.a
    sent = full.plan() if right is None else full.apply(right)
    pairs = Pairs(left, inverse(a)[:, None] * sent, a)
    run = lambda key: clustering.cluster(pairs, rank, key)
    labels, costs = jax.lax.map(run, jax.random.split(key, STARTS))
    return _from_labels(full, labels[jnp.argmin(costs)], rank)
