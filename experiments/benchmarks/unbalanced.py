"""`python -m experiments.benchmarks.unbalanced`: penalised marginals against OTT-JAX.

Plane points, n = 1000, epsilon = 1e-3 of the largest cost, tau = rho / (rho + epsilon)
of 0.9, 0.99 and 0.999 on both sides, to an error of 1e-8. The error is measured here
in float64, from potentials: L1 distance of both marginals of the plan to the masses
a exp(-f / rho) and b exp(-g / rho) that are optimal for them, over the mass.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import record
from experiments.benchmarks import peer_process
from experiments.benchmarks.arena import python_of

TOLERANCE, SHARE, TAUS, ROUNDS, LIMIT = 1e-8, 1e-3, (0.9, 0.99, 0.999), 5, 10.0
MOST = 200_000  # iterations of OTT-JAX
SLOW = 2.0  # seconds of a solve, above which it runs once
SETTINGS: dict[str, dict[str, Any]] = {
    "OTT-JAX": {"lse": True},
    "OTT-JAX, kernel": {"lse": False},
    "OTT-JAX momentum 1.5": {"lse": True, "momentum": [0, 1.5]},
    "OTT-JAX momentum 1.5, kernel": {"lse": False, "momentum": [0, 1.5]},
    "OTT-JAX Anderson": {"lse": True, "anderson": [5, 1]},
    "OTT-JAX schedule": {"lse": True, "schedule": [100.0, 0.9]},
}


def problem(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs of largest 1, and random masses whose totals differ by a third."""
    random = np.random.default_rng(seed)
    x, y = random.random((n, 2)), random.random((n, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = random.random(n) + 0.1, random.random(n) + 0.1
    return cost / cost.max(), a / a.sum(), 1.3 * b / b.sum()


def error(arrays: dict[str, np.ndarray], f: Any, g: Any, rho: float) -> float:
    """Relative L1 error of both marginals, float64."""
    f, g = np.asarray(f, np.float64), np.asarray(g, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        plan = np.exp((f[:, None] + g[None, :] - arrays["cost"]) / SHARE)
        a, b = arrays["a"] * np.exp(-f / rho), arrays["b"] * np.exp(-g / rho)
        missing = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
        return float(missing / a.sum())


def ours(arrays: dict[str, np.ndarray], rho: float, method: str) -> Any:
    """Function that solves once: (seconds, f, g, what it did)."""
    cost, a, b = (jnp.asarray(arrays[k]) for k in ("cost", "a", "b"))
    options = {"tolerance": TOLERANCE, "method": method, "epsilon": SHARE}
    run = jax.jit(lambda c, a, b, r: jaxsns.solve(c, a, b, rho_a=r, rho_b=r, **options))
    jax.block_until_ready(run(cost, a, b, rho))

    def once() -> tuple[float, Any, Any, str]:
        start = time.perf_counter()
        s = jax.block_until_ready(run(cost, a, b, rho))
        seconds = time.perf_counter() - start
        c = s.counts
        did = f"{int(c.newton_steps)} Newton steps, {int(c.passes)} passes"
        return seconds, s.f, s.g, did

    return once


def theirs(child: Any, arrays: dict, rho: float, tau: float, setting: dict) -> Any:
    """The same for OTT-JAX at the loosest threshold that reaches the tolerance."""
    options = {
        "epsilon": SHARE,
        "threshold": TOLERANCE,
        "max_iterations": MOST,
        "tau": [tau, tau],
        **setting,
    }
    for _ in range(6):
        found, facts = child.call("solve", arrays, options, LIMIT)
        missed = error(arrays, found["f"], found["g"], rho)
        if missed <= TOLERANCE or not np.isfinite(missed):
            break
        options["threshold"] *= 0.5 * TOLERANCE / missed

    def once() -> tuple[float, Any, Any, str]:
        found, facts = child.call("solve", arrays, options, LIMIT)
        return (
            facts["seconds"],
            found["f"],
            found["g"],
            f"{facts['iterations']} iterations",
        )

    return once


def measure(python: str | None, n: int, seed: int) -> list[dict[str, Any]]:
    """All contenders at each tau, in turn."""
    cost, a, b = problem(n, seed)
    arrays = {"cost": cost, "a": a, "b": b}
    out = []
    for tau in TAUS:
        rho = SHARE * tau / (1 - tau)
        who = {f"jaxsns {x}": ours(arrays, rho, x) for x in ("auto", "sinkhorn")}
        children = []
        for name, setting in SETTINGS.items() if python else ():
            child = peer_process.start(python, "experiments.benchmarks.ott_worker")
            children.append(child)
            try:
                who[name] = theirs(child, arrays, rho, tau, setting)
            except peer_process.PeerError as failure:
                out.append({"tau": tau, "who": name, "failed": str(failure)[:80]})
        runs: dict[str, list] = {name: [] for name in who}
        for _ in range(ROUNDS):
            for name, once in who.items():
                if not runs[name] or runs[name][-1][0] < SLOW:
                    runs[name].append(once())
        for child in children:
            child.close()
        for name, found in runs.items():
            _, f, g, did = found[-1]
            reached = error(arrays, f, g, rho)
            out.append(
                {
                    "tau": tau,
                    "who": name,
                    "milliseconds": 1e3 * statistics.median(x[0] for x in found),
                    "error": reached,
                    "missed": not reached <= TOLERANCE,
                    "did": did,
                }
            )
    return out


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown; misses are printed as misses."""
    out = ["| tau | contender | ms | error | work |", "|---|---|---:|---|---|"]
    for x in lines:
        if "failed" in x:
            out.append(f"| {x['tau']} | {x['who']} | failed | | {x['failed']} |")
            continue
        time_ = "MISS" if x["missed"] else f"{x['milliseconds']:.1f}"
        row = f"| {x['tau']} | {x['who']} | {time_} | {x['error']:.1e} | {x['did']} |"
        out.append(row)
    return "\n".join(out)


def main() -> None:
    """Run, print the table and write it with its numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ott-python", default=None)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    python = python_of("ott", options.ott_python)
    lines = measure(python, options.n, options.seed)
    print(table(lines))
    record.save_json(options.output / "unbalanced.json", {"records": lines})


if __name__ == "__main__":
    main()
