"""The same problems by OTT-JAX, in an interpreter that has it.

Its own marginal error is the threshold; the harness judges its potentials as ours.
"""

import functools
import sys
from pathlib import Path

import jax
from ott.geometry import geometry, pointcloud  # pyright: ignore
from ott.problems.linear import linear_problem  # pyright: ignore
from ott.solvers.linear import sinkhorn  # pyright: ignore

from experiments.accelerator import cases
from experiments.accelerator.cases import Rows, Sizes, timed

WHO, STEPS, BLOCK = "OTT-JAX", 20_000, 512  # sweeps at most; columns at a time


def _solved(own: geometry.Geometry):
    problem = linear_problem.LinearProblem(own)
    options = {"threshold": cases.TOLERANCE, "max_iterations": STEPS}
    return sinkhorn.Sinkhorn(lse_mode=True, norm_error=1, **options)(problem)


def _kept(own: geometry.Geometry):
    out = _solved(own)
    return out.f, out.g, out.n_iters, out.converged


def _facts(facts: dict, kept: tuple, error: float) -> dict:
    _, _, steps, converged = kept
    more = {"sweeps": float(steps.mean()), "converged": float(converged.mean())}
    return {**facts, **more, "error": error}


def dense(rows: Rows, sizes: Sizes) -> None:
    """One cost matrix at a time."""
    epsilon = cases.DENSE_EPSILON

    def row(n: int) -> dict:
        cost = cases.costs(1, n)[0]
        solve = lambda c: _kept(geometry.Geometry(cost_matrix=c, epsilon=epsilon))
        facts, kept = timed(solve, cost)
        return _facts(facts, kept, cases.matrix_error(cost, *kept[:2], epsilon))

    for n in sizes.dense:
        rows.attempt(f"{n} x {n}", WHO, functools.partial(row, n))


def batches(rows: Rows, sizes: Sizes) -> None:
    """Many problems at once: solves, and values with gradients."""
    settings = (
        (sizes.batch, cases.BATCH_EPSILON),
        (sizes.tiny, cases.TINY_EPSILON),
    )

    def row(shape: tuple[int, int], epsilon: float) -> dict:
        cost = cases.costs(*shape)
        one = lambda c: _kept(geometry.Geometry(cost_matrix=c, epsilon=epsilon))
        facts, kept = timed(jax.vmap(one), cost)
        error = max(
            cases.matrix_error(cost[k], kept[0][k], kept[1][k], epsilon)
            for k in range(min(4, shape[0]))
        )
        return _facts(facts, kept, error)

    def gradient(shape: tuple[int, int], epsilon: float) -> dict:
        def value(cost: jax.Array) -> jax.Array:
            own = geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
            return _solved(own).reg_ot_cost

        return timed(jax.vmap(jax.value_and_grad(value)), cases.costs(*shape))[0]

    for shape, epsilon in settings:
        name = f"{shape[0]} x ({shape[1]} x {shape[1]})"
        rows.attempt(name, WHO, functools.partial(row, shape, epsilon))
        rows.attempt(
            name, WHO + ", gradient", functools.partial(gradient, shape, epsilon)
        )


def streamed(rows: Rows, sizes: Sizes) -> None:
    """Points, in OTT's online mode."""
    epsilon = cases.CLOUD_EPSILON

    def row(n: int) -> dict:
        x, y = cases.clouds(n)

        def solve(x: jax.Array, y: jax.Array):
            block = min(BLOCK, n)
            return _kept(pointcloud.PointCloud(x, y, epsilon=epsilon, batch_size=block))

        facts, kept = timed(solve, x, y)
        return _facts(facts, kept, cases.cloud_error(x, y, *kept[:2], epsilon))

    for n in sizes.streamed:
        rows.attempt(f"{n} points", WHO + ", online", functools.partial(row, n))


PARTS = {f.__name__: f for f in (dense, batches, streamed)}


def main(part: str, path: str, sizes: str) -> None:
    """Run one part and write its rows."""
    jax.config.update("jax_enable_compilation_cache", False)
    chosen = cases.REHEARSAL if sizes == "rehearsal" else cases.FULL
    PARTS[part](Rows(Path(path)), chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
