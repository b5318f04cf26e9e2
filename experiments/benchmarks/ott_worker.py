"""Child that solves single problems with OTT-JAX, in an environment of its own.

Its variants are named by a dictionary of static options; thresholds, epsilon, costs
and masses are data, so that a variant is compiled once for a shape.
"""

import functools
import importlib.metadata
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import epsilon_scheduler, geometry  # pyright: ignore
from ott.problems.linear import linear_problem  # pyright: ignore
from ott.solvers.linear import acceleration, sinkhorn  # pyright: ignore

from experiments.benchmarks.peer_process import Arrays, serve

STATIC = ("momentum", "anderson", "schedule", "tau")
_on_device: dict[str, Any] = {}


def _solver(
    lse: bool, momentum: tuple | None, anderson: tuple | None, max_iterations: int
) -> Any:
    """Sinkhorn with one acceleration or none; the threshold is set later."""
    extra: dict[str, Any] = {}
    if momentum is not None:
        start, value = momentum
        extra["momentum"] = acceleration.Momentum(start=start, value=value)
    if anderson is not None:
        memory, refresh = anderson
        extra["anderson"] = acceleration.AndersonAcceleration(
            memory=memory, refresh_every=refresh
        )
    return sinkhorn.Sinkhorn(
        lse_mode=lse,
        norm_error=1,
        inner_iterations=10,
        max_iterations=max_iterations,
        **extra,
    )


@functools.cache
def _compiled(
    lse: bool,
    momentum: tuple | None,
    anderson: tuple | None,
    schedule: tuple | None,
    tau: tuple | None,
    max_iterations: int,
    shapes: tuple,
) -> tuple[Any, float]:
    """Executable and the seconds of its compilation."""
    solver = _solver(lse, momentum, anderson, max_iterations)

    def solve(cost, a, b, epsilon, threshold):
        solver.threshold = threshold
        if schedule is not None:
            init, decay = schedule
            epsilon = epsilon_scheduler.Epsilon(epsilon, init=init, decay=decay)
        tau_a, tau_b = (1.0, 1.0) if tau is None else tau
        problem = linear_problem.LinearProblem(
            geometry.Geometry(cost_matrix=cost, epsilon=epsilon),
            a,
            b,
            tau_a=tau_a,
            tau_b=tau_b,
        )
        out = solver(problem)
        return out.f, out.g, out.n_iters, out.converged

    start = time.perf_counter()
    made = jax.jit(solve).lower(*shapes).compile()
    return made, time.perf_counter() - start


def _arrays(arrays: Arrays) -> tuple:
    """Put the arrays on the device once; their dtype decides about x64."""
    if _on_device.get("of") is not arrays:
        _on_device.clear()
        jax.config.update("jax_enable_x64", arrays["cost"].dtype == np.float64)
        made = tuple(jnp.asarray(arrays[name]) for name in ("cost", "a", "b"))
        _on_device.update({"of": arrays, "made": jax.block_until_ready(made)})
    return _on_device["made"]


def solve(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """One timed solve.

    Args:
      arrays: cost [n, m], a [n], b [m], all of one dtype.
      options: epsilon, threshold (L1 error of the column sums), max_iterations, lse,
        and where wanted momentum [start, value], anderson [memory, refresh] and
        schedule [init, decay] (init in multiples of epsilon) and tau [rows, columns]
        of an unbalanced problem.

    Returns:
      f [n] and g [m]; seconds, iterations, and whether OTT says it converged.
    """
    cost, a, b = _arrays(arrays)
    static = [options.get(name) for name in STATIC]
    numbers = [jnp.asarray(options[x], cost.dtype) for x in ("epsilon", "threshold")]
    inputs = (cost, a, b, *numbers)
    run, compiling = _compiled(
        options["lse"],
        *(None if x is None else tuple(x) for x in static),
        options["max_iterations"],
        tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs),
    )
    start = time.perf_counter()
    f, g, iterations, converged = jax.block_until_ready(run(*inputs))
    seconds = time.perf_counter() - start
    facts = {
        "seconds": seconds,
        "iterations": int(iterations),
        "converged": bool(converged),
        "compile_seconds": compiling,
    }
    return {"f": np.asarray(f), "g": np.asarray(g)}, facts


def about(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Versions and device."""
    del arrays, options
    names = ("ott-jax", "jax", "jaxlib")
    facts = {name: importlib.metadata.version(name) for name in names}
    return {}, {**facts, "device": str(jax.devices()[0].device_kind)}


if __name__ == "__main__":
    serve({"solve": solve, "about": about})
