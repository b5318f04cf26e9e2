"""The parts that this library runs; `python -m experiments.accelerator.ours`."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxsns
from experiments.accelerator import cases
from experiments.accelerator.cases import Rows, Sizes, timed
from jaxsns.solvers.batched import pallas_sweeps
from jaxsns.solvers.batched.lockstep import FIRST_SWEEPS


def _kept(solution: jaxsns.Solution) -> tuple:
    return solution.f, solution.g, solution.status, solution.counts


def _facts(facts: dict, kept: tuple, error: float | None = None) -> dict[str, Any]:
    """Facts of a run, with how it ended; a batch tells its worst and its mean."""
    _, _, status, counts = kept
    facts["converged"] = float(jnp.mean(status == jaxsns.Status.CONVERGED))
    facts["sweeps"] = float(jnp.mean(counts.sweeps))
    facts["newton_steps"] = float(jnp.mean(counts.newton_steps))
    return facts if error is None else facts | {"error": error}


def dense(rows: Rows, sizes: Sizes) -> None:
    """One cost matrix at a time."""
    epsilon = cases.DENSE_EPSILON

    def solve(method: str, cost: jax.Array) -> tuple:
        options = {"tolerance": cases.TOLERANCE, "method": method}
        return _kept(jaxsns.solve(cost, epsilon=epsilon, **options))

    def row(n: int, method: str) -> dict:
        cost = cases.costs(1, n)[0]
        facts, kept = timed(functools.partial(solve, method), cost)
        return _facts(facts, kept, cases.matrix_error(cost, *kept[:2], epsilon))

    for n in sizes.dense:
        for method in ("auto", "sinkhorn"):
            rows.attempt(f"{n} x {n}", method, lambda n=n, m=method: row(n, m))


def batches(rows: Rows, sizes: Sizes) -> None:
    """Many problems at once: solves, and values with gradients."""
    settings = [
        (sizes.batch, cases.BATCH_EPSILON, (False,)),
        (sizes.tiny, cases.TINY_EPSILON, (False, True)),
    ]

    def solve(cost: jax.Array, epsilon: float, pallas: bool) -> jaxsns.Solution:
        geometry = jaxsns.Dense(cost, pallas=pallas)
        return jaxsns.solve(geometry, epsilon=epsilon, tolerance=cases.TOLERANCE)

    def row(shape: tuple[int, int], epsilon: float, pallas: bool) -> dict:
        one = lambda c: _kept(solve(c, epsilon, pallas))
        cost = cases.costs(*shape)
        facts, kept = timed(jax.vmap(one), cost)
        error = max(
            cases.matrix_error(cost[k], kept[0][k], kept[1][k], epsilon)
            for k in range(min(4, shape[0]))
        )
        return _facts(facts, kept, error)

    def gradient(shape: tuple[int, int], epsilon: float, pallas: bool) -> dict:
        value = lambda c: solve(c, epsilon, pallas).value
        return timed(jax.vmap(jax.value_and_grad(value)), cases.costs(*shape))[0]

    for shape, epsilon, ways in settings:
        name = f"{shape[0]} x ({shape[1]} x {shape[1]})"
        for pallas in ways:
            who = "auto, pallas" if pallas else "auto"
            given = shape, epsilon, pallas
            if sizes != cases.REHEARSAL:  # a gradient needs the solve as well
                rows.attempt(name, who, functools.partial(row, *given))
            rows.attempt(name, who + ", gradient", functools.partial(gradient, *given))


def streamed(rows: Rows, sizes: Sizes) -> None:
    """Points whose costs are never stored."""
    epsilon = cases.CLOUD_EPSILON

    def row(n: int, method: str, pallas: bool) -> dict:
        x, y = cases.clouds(n)

        def solve(x: jax.Array, y: jax.Array) -> tuple:
            cloud = jaxsns.PointCloud(x, y, streamed=True, pallas=pallas)
            options = {"tolerance": cases.TOLERANCE, "method": method}
            return _kept(jaxsns.solve(cloud, epsilon=epsilon, **options))

        facts, kept = timed(solve, x, y)
        return _facts(facts, kept, cases.cloud_error(x, y, *kept[:2], epsilon))

    for n in sizes.streamed:
        for method, pallas in (
            ("auto", False),
            ("sinkhorn", False),
            ("sinkhorn", True),
        ):
            who = method + (", pallas" if pallas else "")
            rows.attempt(f"{n} points", who, functools.partial(row, n, method, pallas))


def kernels(rows: Rows, sizes: Sizes) -> None:
    """Single operations, by XLA and by Pallas."""

    def softmin(n: int, pallas: bool) -> dict:
        x, y = cases.clouds(n)

        def run(x: jax.Array, y: jax.Array) -> tuple:
            cloud = jaxsns.PointCloud(x, y, streamed=True, pallas=pallas).formed()
            zero, epsilon = jnp.zeros(n, x.dtype), jnp.asarray(0.1, x.dtype)
            return cloud.softmin(zero, epsilon, 0), cloud.marginals(zero, zero, epsilon)

        return timed(run, x, y)[0]

    def sweeps(shape: tuple[int, int], pallas: bool) -> dict:
        number, n = shape
        matrix = jnp.moveaxis(cases.costs(number, n), 0, -1) + 0.1
        mass = jnp.full((n, number), 1 / n, matrix.dtype)

        def plain(matrix: jax.Array) -> tuple:
            def sweep(_, state):
                u, v = state
                v = mass / jnp.sum(matrix * u[:, None], axis=0)
                return mass / jnp.sum(matrix * v[None], axis=1), v

            return jax.lax.fori_loop(0, FIRST_SWEEPS, sweep, (mass, mass))

        def fused(matrix: jax.Array) -> tuple:
            parts = mass, mass, matrix, mass, mass
            return pallas_sweeps.sweeps(FIRST_SWEEPS, *parts)

        return timed(fused if pallas else plain, matrix)[0]

    for pallas in (False, True):
        who = "pallas" if pallas else "xla"
        for n in sizes.operations:
            name = f"soft minima and marginals, {n} points"
            rows.attempt(name, who, functools.partial(softmin, n, pallas))
        name = f"{FIRST_SWEEPS} sweeps, {sizes.tiny[0]} x ({sizes.tiny[1]})"
        rows.attempt(name, who, functools.partial(sweeps, sizes.tiny, pallas))


def first_calls(rows: Rows, sizes: Sizes) -> None:
    """Seconds until the first answer, with nothing compiled before."""
    n = min(sizes.dense)
    cost, (x, y) = cases.costs(1, n)[0], cases.clouds(min(sizes.streamed))
    value = lambda c: jaxsns.solve(c, epsilon=0.05).value
    cloud = lambda x, y: jaxsns.PointCloud(x, y, streamed=True)
    programs: dict[str, tuple[Callable, tuple]] = {
        "value": (value, (cost,)),
        "gradient of the value": (jax.grad(value), (cost,)),
        "vmap, value": (jax.vmap(value), (cases.costs(*sizes.batch),)),
        "streamed, value": (
            lambda x, y: jaxsns.solve(cloud(x, y), epsilon=0.1).value,
            (x, y),
        ),
        "soft_sort": (jaxsns.soft_sort, (cost[0],)),
    }
    if sizes == cases.REHEARSAL:  # what the other parts do not compile
        programs = {"soft_sort": programs["soft_sort"]}
    for name, (function, arguments) in programs.items():
        rows.attempt(name, "jaxsns", lambda f=function, a=arguments: timed(f, *a)[0])


PARTS = {f.__name__: f for f in (dense, batches, streamed, kernels, first_calls)}


def main(part: str, path: str, sizes: str) -> None:
    """Run one part and write its rows."""
    jax.config.update("jax_enable_compilation_cache", False)
    chosen = cases.REHEARSAL if sizes == "rehearsal" else cases.FULL
    PARTS[part](Rows(Path(path)), chosen)


if __name__ == "__main__":
    main(*sys.argv[1:])
