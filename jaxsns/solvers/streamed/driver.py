"""A solve whose costs are never stored: sort, start from clusters, pass, restore.

The start: both clouds as the mass-weighted means of their clusters, a problem of at
most 2048 x 2048 that the dense method solves, at the wanted epsilon or, where clusters
are wide against it, at one as large as their width. From there the streamed method
follows epsilon down.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Streamed
from jaxsns.numerics import finite_minus_inf, is_forbidden
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import continuation, kernel_loop, loop
from jaxsns.solvers.newton import newton
from jaxsns.solvers.options import NewtonOptions, SinkhornOptions
from jaxsns.solvers.outcome import Outcome
from jaxsns.solvers.streamed import (
    newton as streamed_newton,
)
from jaxsns.solvers.streamed import (
    sinkhorn as streamed_sinkhorn,
)
from jaxsns.status import Status, code
from jaxsns.streaming import clusters
from jaxsns.streaming.arrangement import ClusteredProblem, sort_into_clusters
from jaxsns.streaming.passes import semidual_pass

START_TOLERANCE = 1e-3  # relative L1 error of the problem of clusters [D24]
# [D24]
ABOVE_ROUNDING = 5.0  # times what rounding explains: an error that sweeps may lower
WARM_ERROR = 0.5  # marginal error of given potentials that are good to start from [D24]
# [D24]
WIDTH = 0.1  # of the clusters' width in cost: the least epsilon of the first level


def coarse(arranged: ClusteredProblem) -> tuple[Problem, Streamed, jax.Array]:
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
        # <x, y> measures how far apart two points are once its parts of one are gone.
        if pairs.cost == "dot":
            pairs = dataclasses.replace(pairs, cost="sqeuclidean")
        index = jnp.arange(points.shape[0])[:, None]
        own = pairs.pair_costs(index, index // shape.size)[:, 0]
        counts = (mass > 0) & ~is_forbidden(own)
        width += jnp.sum(jnp.where(counts, mass * own, 0)) / jnp.sum(mass)
    across = dataclasses.replace(geometry, y=column_points, mesh=None)
    return costs, across, width


def _start(arranged: ClusteredProblem, first: jax.Array) -> jax.Array:
    """[n] row potentials at the first epsilon, from the problem of clusters."""
    problem = arranged.problem
    small, across, _ = coarse(arranged)
    small = small.with_epsilon(first)
    options = NewtonOptions(START_TOLERANCE, max_steps=300, linear_solver="cg")
    end = kernel_loop.solve(
        small,
        options,
        newton.method("cg"),
        continuation.plan(small, True),
        kernel_loop.initial(small, None),
    )
    g = jnp.where(small.b > 0, end.g, finite_minus_inf(problem.dtype))
    soft = across.softmin(g, first, axis=1)
    return marginal.fitted_potential(problem.a, problem.rho_a, soft, first)


def check(method: str, options: Any, path: bool | None) -> None:
    """Refuse what only a stored matrix can do; raises ValueError."""
    if method == "sns":
        raise ValueError(
            "method 'sns' needs a stored matrix; use 'auto', or "
            "PointCloud(..., streamed=False)"
        )
    solver = getattr(options, "linear_solver", "auto")
    if solver != "auto":
        raise ValueError(
            f"linear_solver must be 'auto' where costs are streamed; got {solver!r} "
            "(PointCloud(..., streamed=False) stores them)"
        )
    if path is not None:
        raise ValueError(
            "continuation must be None where costs are streamed: what the clusters "
            f"show decides; got {path!r} (PointCloud(..., streamed=False) stores "
            "them)"
        )


def run(
    method: str,
    problem: Problem,
    options: Any,
    init: jax.Array | None,
    record: Recorder | None = None,
    columns_last: bool = False,
) -> Outcome:
    """Solve a streamed problem from row potentials [n] or from clusters.

    Potentials that are given are used if their error is below WARM_ERROR. For a fixed
    number of sweeps `init` is that of the side that ends exact.
    """
    arranged = sort_into_clusters(problem)
    inner = arranged.problem
    if method == "fixed":
        end = _fixed(arranged, options, init, columns_last)
        end = end._replace(record=record)
    elif method == "sinkhorn":
        assert isinstance(options, SinkhornOptions)
        f = _sorted(arranged, init)
        end = _ended(streamed_sinkhorn.run(inner, options, f, record))
    else:
        given = None if init is None else _sorted(arranged, init)
        end = _ended(_newton(arranged, options, given, record))
        one = jnp.ones_like(end.error)
        floor = dual.rounding_error(inner, end.f, end.g, one)
        failed = end.status == code(Status.STALLED)
        asked = failed & (end.error > ABOVE_ROUNDING * floor)
        end = control.cond(
            asked,
            lambda: _exact_steps(inner, options, end, asked),
            lambda: end,
        )
    f = jnp.where(problem.a > 0, arranged.rows.restore(end.f), -jnp.inf)
    g = jnp.where(problem.b > 0, arranged.columns.restore(end.g), -jnp.inf)
    return end._replace(f=f, g=g)


def _sorted(arranged: ClusteredProblem, f: jax.Array | None) -> jax.Array:
    """[n] sorted row potentials, finite; 0 if there are none."""
    real = arranged.problem.a > 0
    f = jnp.zeros_like(arranged.problem.a) if f is None else arranged.rows.sort(f)
    return jnp.where(real, f, finite_minus_inf(f.dtype))


def _fixed(
    arranged: ClusteredProblem,
    options: Any,
    init: jax.Array | None,
    columns_last: bool,
) -> Outcome:
    """A fixed number of sweeps; nothing of it is on record but its end."""
    assert isinstance(options, SinkhornOptions)
    problem = arranged.problem
    order, mass = arranged.rows, problem.a
    if columns_last:
        order, mass = arranged.columns, problem.b
    start = jnp.zeros_like(mass) if init is None else order.sort(init)
    start = jnp.where(mass > 0, start, finite_minus_inf(mass.dtype))
    return Outcome(
        *streamed_sinkhorn.fixed_number(problem, options, start, columns_last)
    )


def _ended(end: Any) -> Outcome:
    return Outcome(end.f, end.g, end.error, end.status, end.counts, end.record)


def _newton(
    arranged: ClusteredProblem,
    options: Any,
    init: jax.Array | None,
    record: Recorder | None,
):
    problem, _, _, shapes = arranged
    width = coarse(arranged)[2]
    first = jnp.maximum(problem.epsilon, WIDTH * width)
    ratio = jnp.log(first / problem.epsilon) / jnp.log(continuation.LEVEL_FACTOR)
    count = jnp.ceil(ratio).astype(jnp.int32)

    def fresh():
        real = problem.a > 0
        return jnp.where(
            real, _start(arranged, first), finite_minus_inf(problem.dtype)
        ), count

    if init is None:
        f, count = fresh()
    else:
        seen = semidual_pass(problem, init, shapes)
        warm = seen.error < WARM_ERROR
        f, count = control.cond(warm, lambda: (init, jnp.zeros_like(count)), fresh)
    state = streamed_newton.init(problem, f, count)._replace(record=record)
    if init is not None:
        state = state._replace(counts=state.counts.plus(passes=1))
    sparse = width > problem.epsilon
    return streamed_newton.run(problem, options, state, shapes, first, sparse)


def _exact_steps(
    problem: Problem, options: Any, before: Outcome, asked: jax.Array
) -> Outcome:
    """Newton on the exact matrix from where its model was of no more use.

    Where a plan nearly splits and a cluster has points of two blocks, mass leaks
    between the blocks in the model, and its steps no longer lower the error. A product
    costs a pass here, so these steps come last. The better of both is kept.
    asked: under `vmap` every lane comes here; those that did not ask make no step.
    """
    left = jnp.maximum(options.max_steps - before.counts.sweeps, 1)
    status = jnp.where(asked, code(Status.RUNNING), code(Status.STALLED))
    start = kernel_loop.initial(problem, before.f, before.record)
    end = kernel_loop.solve(
        problem,
        dataclasses.replace(options, max_steps=left),
        newton.method("cg"),
        continuation.plan(problem, False),
        start._replace(g=before.g, status=loop.as_status(status)),
    )
    end = _ended(end)
    better = end.error < before.error
    kept = jax.tree.map(
        lambda u, v: jnp.where(better, u, v),
        end._replace(record=None),
        before._replace(record=None),
    )
    # A sweep is two products with the kernel, each of them a pass.
    done = end.counts.plus(passes=end.counts.linear_steps + 2 * end.counts.sweeps)
    counts = jax.tree.map(jnp.add, before.counts, done)
    return kept._replace(counts=counts, record=end.record)
