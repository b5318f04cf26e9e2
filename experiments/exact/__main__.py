"""Run as `python -m experiments.exact [--peers <python with POT>]`.

Solves each problem with `solve_exact`, SciPy and POT in turn, several times, and a
batch with these and with optax. Prints a table, and writes `results.json` here.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import argparse  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from optax.assignment import hungarian_algorithm  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402

from experiments import record  # noqa: E402
from experiments.benchmarks import peer_process  # noqa: E402
from experiments.exact import data  # noqa: E402
from jaxsns import solve_exact  # noqa: E402

FOLDER = Path(__file__).parent
solve = jax.jit(solve_exact)
batched = jax.jit(jax.vmap(solve_exact))
hungarian = jax.jit(jax.vmap(hungarian_algorithm))


def timed(function: Callable, *args: Any) -> tuple[Any, float, float]:
    """Result, seconds, and seconds of the processor."""
    begin, used = time.perf_counter(), time.process_time()
    out = jax.block_until_ready(function(*args))
    return out, time.perf_counter() - begin, time.process_time() - used


def scipys(cost: np.ndarray) -> np.ndarray:
    """[k] least mean costs of assignments, one after another."""
    chosen = (linear_sum_assignment(c) for c in cost)
    return np.array([c[pair].mean() for c, pair in zip(cost, chosen, strict=True)])


def pots(peer: Any, cost, a, b) -> tuple[Any, float, float]:
    """Values of POT, seconds, and seconds of the processor."""
    _, facts = peer.call("emd", {"cost": cost, "a": a, "b": b}, {}, limit=600.0)
    return np.array(facts["values"]), facts["seconds"], facts["processor"]


def ways(case: data.Case, peer: Any) -> dict[str, Callable]:
    """The solvers of one problem."""
    cost, a, b = map(jnp.asarray, case[1:])
    out = {"jaxsns": lambda: timed(solve, cost, a, b)}
    if np.ptp(case.a) == 0:
        out["scipy"] = lambda: timed(scipys, case.cost[None])
    if peer is not None:
        out["pot"] = lambda: pots(peer, case.cost[None], case.a, case.b)
    return out


def batch_ways(costs: np.ndarray, peer: Any) -> dict[str, Callable]:
    """The solvers of a batch of assignments."""
    on_device, even = jnp.asarray(costs), np.full(costs.shape[1], 1 / costs.shape[1])
    out = {
        "jaxsns": lambda: timed(batched, on_device),
        "optax": lambda: timed(hungarian, on_device),
        "scipy": lambda: timed(scipys, costs),
    }
    if peer is not None:
        out["pot"] = lambda: pots(peer, costs, even, even)
    return out


def compare(found: dict[str, Callable], repeats: int) -> dict[str, Any]:
    """Call all in turn, once to compile and then `repeats` times; medians."""
    times: dict[str, list] = {name: [] for name in found}
    results = {name: call()[0] for name, call in found.items()}
    for _ in range(repeats):
        for name, call in found.items():
            times[name].append(call()[1:])
    out: dict[str, Any] = {}
    for name, pairs in times.items():
        wall, used = np.median(np.array(pairs), axis=0)
        out[name] = {"seconds": float(wall), "processor": float(used)}
    ours = results["jaxsns"]
    out["gap"] = float(jnp.max(ours.gap))
    out["converged"] = bool(ours.converged.all())
    out["steps"] = int(jnp.max(ours.steps))
    for name in ("scipy", "pot"):
        if name in results:
            theirs = np.max(np.abs(np.asarray(ours.value) / results[name] - 1))
            out[name]["difference"] = float(theirs)
    return out


def main() -> None:
    """Run all and write what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", help="Python of an environment with POT")
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--largest", type=int, default=5000, help="0: leave it out")
    parser.add_argument("--batch", type=int, nargs=2, default=[64, 100])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=FOLDER / "results.json")
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    peer = options.peers and peer_process.start(
        options.peers, "experiments.exact.worker"
    )
    results = {}
    for case in data.cases(options.sizes, options.largest):
        results[case.name] = compare(ways(case, peer), options.repeats)
    number, n = options.batch
    found = batch_ways(data.batch(number, n), peer)
    results[f"{number} x ({n} x {n})"] = compare(found, options.repeats)
    solvers = ["jaxsns", "pot", "scipy", "optax"]
    rows = [
        [
            name,
            *(r.get(s, {}).get("seconds", "") for s in solvers),
            r["gap"],
            r["steps"],
        ]
        for name, r in results.items()
    ]
    print(record.table(rows, ["seconds", *solvers, "gap", "steps"]))  # noqa: T201
    facts = {"environment": record.environment(), "results": results}
    record.save_json(options.output, facts)


if __name__ == "__main__":
    main()
