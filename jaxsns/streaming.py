"""A solve whose costs are never stored: sort, start from clusters, pass, restore.

The start: both clouds as the mass-weighted means of their clusters, a problem of at
most 2048 x 2048 that the dense method solves, at the wanted epsilon or, where clusters
are wide against it, at one as large as their width. From there the streamed method
follows epsilon down.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsns import clusters, marginal
from jaxsns.arrangement import Sorted, arrange
from jaxsns.geometry import Streamed
from jaxsns.methods import Options
from jaxsns.numerics import far_below
from jaxsns.outcome import Outcome
from jaxsns.problem import Problem
from jaxsns.solvers import continuation, newton, streamed_newton, streamed_sinkhorn
from jaxsns.solvers.newton import NewtonOptions
from jaxsns.solvers.sinkhorn import SinkhornOptions

START_TOLERANCE = 1e-3  # relative L1 error of the problem of clusters
WIDTH = 0.1  # of the clusters' width in cost: the least epsilon of the first level


def coarse(arranged: Sorted) -> tuple[Problem, Streamed, jax.Array]:
    """The problem of clusters; rows against its columns; the clusters' width in cost.

    The width is the mean cost of sending all mass to the means of its clusters.
    """
    problem, _, _, (x, y) = arranged
    geometry = problem.geometry
    assert isinstance(geometry, Streamed)
    a, b = problem.a, problem.b
    row_points = clusters.means(geometry.x, a, x)
    column_points = clusters.means(geometry.y, b, y)
    small = dataclasses.replace(geometry, x=row_points, y=column_points, mesh=None)
    rho_a, rho_b = problem.rho_a, problem.rho_b
    costs = Problem(
        small.dense(),
        clusters.sums(a, x),
        clusters.sums(b, y),
        problem.epsilon,
        None if rho_a is None else clusters.means(rho_a, a, x),
        None if rho_b is None else clusters.means(rho_b, b, y),
    )
    width = jnp.zeros((), a.dtype)
    sides = (geometry.x, row_points, a, x), (geometry.y, column_points, b, y)
    for points, means, mass, shape in sides:
        pairs = dataclasses.replace(geometry, x=points, y=means, mesh=None)
        index = jnp.arange(points.shape[0])[:, None]
        own = pairs.pair_costs(index, index // shape.size)[:, 0]
        width += jnp.sum(jnp.where(mass > 0, mass * own, 0)) / jnp.sum(mass)
    across = dataclasses.replace(geometry, y=column_points, mesh=None)
    return costs, across, width


def _start(arranged: Sorted, first: jax.Array) -> jax.Array:
    """[n] row potentials at the first epsilon, from the problem of clusters."""
    problem = arranged.problem
    small, across, _ = coarse(arranged)
    small = small.with_epsilon(first)
    options = NewtonOptions(START_TOLERANCE, max_steps=300, linear_solver="cg")
    state = newton.init(small)
    count = continuation.levels(small)
    end = continuation.run(small, options, state, newton.update, count)
    g = jnp.where(small.b > 0, end.g, far_below(problem.dtype))
    soft = across.softmin(g, first, axis=1)
    return marginal.fitted_potential(problem.a, problem.rho_a, soft, first)


def check(method: str, options: Options, continuation: bool | None) -> None:
    """Refuse what only a stored matrix can do; raises ValueError."""
    if method == "sns":
        raise ValueError(
            "method 'sns' needs a stored matrix; use 'auto', or "
            "PointCloud(..., streamed=False)"
        )
    solver = getattr(options, "linear_solver", "auto")
    if solver != "auto":
        raise ValueError(
            f"linear_solver must be 'auto' where costs are streamed; got {solver!r}"
        )
    if continuation is not None:
        raise ValueError(
            "continuation must be None where costs are streamed: what the clusters "
            f"show decides; got {continuation!r}"
        )


def run(
    method: str, problem: Problem, options: Options, init: jax.Array | None
) -> Outcome:
    """Solve a streamed problem from row potentials [n] or from clusters."""
    arranged = arrange(problem)
    inner, shapes = arranged.problem, arranged.shapes
    low = far_below(problem.dtype)
    if init is not None:
        init = jnp.where(inner.a > 0, arranged.rows.sort(init), low)
    if method in ("sinkhorn", "fixed"):
        assert isinstance(options, SinkhornOptions)
        f = jnp.where(inner.a > 0, 0, low) if init is None else init
        end = streamed_sinkhorn.run(inner, options, f)
    else:
        width = coarse(arranged)[2]
        first = jnp.maximum(problem.epsilon, WIDTH * width)
        sparse = width > problem.epsilon
        if init is None:
            ratio = jnp.log(first / problem.epsilon) / jnp.log(continuation.FACTOR)
            count = jnp.ceil(ratio).astype(jnp.int32)
            f = jnp.where(inner.a > 0, _start(arranged, first), low)
        else:
            count, f = jnp.asarray(0, jnp.int32), init
        state = streamed_newton.init(inner, f, count)
        end = streamed_newton.run(inner, options, state, shapes, first, sparse)
    f = jnp.where(problem.a > 0, arranged.rows.restore(end.f), -jnp.inf)
    g = jnp.where(problem.b > 0, arranged.columns.restore(end.g), -jnp.inf)
    return Outcome(f, g, end.error, end.status, end.counts)
