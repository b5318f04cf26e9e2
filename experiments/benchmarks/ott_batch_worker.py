"""OTT-JAX on batches, in a child process: see `peer_process`.

A setting is a dictionary: lse (bool), inner, most (iterations), fixed (count or
None), momentum ([start, value] or None), anderson (memory or None), schedule
([init, decay] of epsilon or None), mode ("vmap" or "loop"), gradient (None,
"implicit" or "unrolled").
"""

import functools
import json
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import epsilon_scheduler, geometry  # pyright: ignore
from ott.problems.linear import linear_problem  # pyright: ignore
from ott.solvers.linear import (  # pyright: ignore
    acceleration,
    implicit_differentiation,
    sinkhorn,
)

from experiments.benchmarks.peer_process import serve

SLOW = 30.0  # seconds of a first call, after which there is no second
_state: dict[str, Any] = {"arrays": None, "device": {}, "runs": {}}


def _solver(setting: dict, threshold: Any) -> sinkhorn.Sinkhorn:
    momentum, fixed = setting.get("momentum"), setting.get("fixed")
    anderson = setting.get("anderson")
    # With OTT's defaults its linear solve fails here: the system is singular without
    # the ridge on constants, and float32 does not reach a tolerance of 1e-6.
    linear = {"ridge_kernel": 1.0, "rtol": 1e-5, "atol": 1e-5}
    implicit = implicit_differentiation.ImplicitDiff(solver_kwargs=linear)
    return sinkhorn.Sinkhorn(
        lse_mode=setting.get("lse", True),
        threshold=threshold,
        norm_error=1,
        # A fixed count as one block: the error is computed once, at the end.
        inner_iterations=fixed or setting.get("inner", 10),
        min_iterations=fixed or 0,
        max_iterations=fixed or setting.get("most", 20_000),
        momentum=acceleration.Momentum(start=momentum[0], value=momentum[1])
        if momentum
        else None,
        anderson=acceleration.AndersonAcceleration(memory=anderson)
        if anderson
        else None,
        implicit_diff=None if setting.get("gradient") == "unrolled" else implicit,
    )


def _one(setting, cost, a, b, epsilon, threshold, init=None):
    schedule = setting.get("schedule")
    if schedule:
        epsilon = epsilon_scheduler.Epsilon(
            epsilon, init=schedule[0], decay=schedule[1]
        )
    geom = geometry.Geometry(cost_matrix=cost, epsilon=epsilon)
    return _solver(setting, threshold)(linear_problem.LinearProblem(geom, a, b), init)


def _compiled(setting: dict, device: dict):
    def one(cost, a, b, epsilon, threshold):
        out = _one(setting, cost, a, b, epsilon, threshold)
        return {"f": out.f, "g": out.g, "errors": out.errors}

    lanes = (None if device["cost"].ndim == 2 else 0, 0, 0, 0, None)
    names = ("cost", "a", "b", "epsilon")
    if setting.get("mode") == "loop":
        single = jax.jit(one)
        split = [[device[k][i] for k in names] for i in range(len(device["a"]))]
        return lambda t: [single(*x, t) for x in split]
    if not setting.get("gradient"):
        batch = jax.jit(jax.vmap(one, in_axes=lanes))
        return lambda t: batch(*(device[k] for k in names), t)

    def value(cost, a, b, epsilon, threshold):
        out = _one(setting, cost, a, b, epsilon, threshold)
        return jnp.sum(device["weight"] * out.matrix), {"f": out.f, "g": out.g}

    def loss(cost, threshold):
        values, aux = jax.vmap(value, in_axes=lanes)(
            cost, device["a"], device["b"], device["epsilon"], threshold
        )
        return jnp.sum(values), aux

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run(threshold):
        (_, aux), slope = gradient(device["cost"], threshold)
        return {"gradient": slope, **aux}

    return run


def _read(found: Any) -> dict[str, np.ndarray]:
    if isinstance(found, list):
        return {k: np.stack([np.asarray(x[k]) for x in found]) for k in found[0]}
    return {k: np.asarray(v) for k, v in found.items()}


def solve(arrays: dict, options: dict) -> tuple[dict, dict]:
    """Solve what was sent, once.

    Args:
      arrays: cost [lanes, n, m] or [n, m], a, b, epsilon [lanes], weight [n, m].
      options: setting, threshold, and `give`, whether to return what was found.

    Returns:
      f, g (and gradient) if wanted, and seconds, iterations of the slowest lane.
    """
    double = arrays["a"].dtype == np.float64
    if arrays is not _state["arrays"]:
        jax.config.update("jax_enable_x64", bool(double))
        device = {k: jnp.asarray(v) for k, v in arrays.items()}
        _state.update(arrays=arrays, device=device, runs={})
    setting, runs = options["setting"], _state["runs"]
    key = json.dumps(setting, sort_keys=True)
    threshold = jnp.asarray(options["threshold"], arrays["a"].dtype)

    def once() -> tuple[float, Any]:
        start = time.perf_counter()
        found = jax.block_until_ready(runs[key](threshold))
        return time.perf_counter() - start, found

    facts: dict[str, Any] = {}
    if key in runs:
        seconds, found = once()
    else:  # the first call compiles: it is never the one that counts
        runs[key] = _compiled(setting, _state["device"])
        first, found = once()
        seconds, found = once() if first < SLOW else (first, found)
        facts["compile_s"] = first - seconds
    facts["seconds"] = seconds
    if not options.get("give"):
        return {}, facts
    made = _read(found)
    errors = made.pop("errors", None)
    if errors is not None:
        blocks = int((errors != -1).sum(-1).max())
        facts["iterations"] = blocks * (
            setting.get("fixed") or setting.get("inner", 10)
        )
    return made, facts


@functools.cache
def _from_potentials(key: str):
    setting = json.loads(key)

    @jax.jit
    def solve(cost, a, b, epsilon, threshold, f, g):
        if not setting.get("lse", True):
            f, g = jnp.exp(f / epsilon), jnp.exp(g / epsilon)
        out = _one(setting, cost, a, b, epsilon, threshold, (f, g))
        return out.f, out.g

    return solve


def follow(arrays: dict, options: dict) -> tuple[dict, dict]:
    """Solve one problem from given potentials, once, compiled before if it is new.

    Args:
      arrays: cost [n, m], a, b, epsilon [], f [n] and g [m] to start from.
      options: setting and threshold.

    Returns:
      f, g and seconds.
    """
    jax.config.update("jax_enable_x64", bool(arrays["a"].dtype == np.float64))
    solve_from = _from_potentials(json.dumps(options["setting"], sort_keys=True))
    threshold = jnp.asarray(options["threshold"], arrays["a"].dtype)
    names = ("cost", "a", "b", "epsilon")
    args = [jnp.asarray(arrays[k]) for k in names] + [threshold]
    args += [jnp.asarray(arrays[k]) for k in "fg"]
    solve_from(*args[:4], jnp.full_like(threshold, 1e3), *args[5:])  # compiles
    start = time.perf_counter()
    f, g = jax.block_until_ready(solve_from(*args))
    seconds = time.perf_counter() - start
    return {"f": np.asarray(f), "g": np.asarray(g)}, {"seconds": seconds}


if __name__ == "__main__":
    serve({"solve": solve, "follow": follow})
