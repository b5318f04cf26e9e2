"""Run as `python -m experiments.gromov --peers <python with POT and OTT-JAX>`.

Solves each problem with this library and with the peers, each in its own process, in
the same run; loss, objective and marginal error of the plans are computed by `judge`.
Writes `results.json` and `gromov.png` beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from experiments import record  # noqa: E402
from experiments.benchmarks import peer_process  # noqa: E402
from experiments.gromov import data, judge, pictures  # noqa: E402
from jaxsns.quadratic import solve_quadratic  # noqa: E402

FOLDER = Path(__file__).parent
LIMIT = 420.0  # seconds that a peer may take
TOLERANCE, INNER = 1e-6, 1e-8
# What is needed for a marginal error of 1e-6; the peers end at 1e-3 to 1e-8.
LOOSE = {"tolerance": 1e-3, "inner_tolerance": 1e-6}


def ours(case: data.Case, **more: Any) -> tuple[np.ndarray, dict]:
    """Plan and seconds of the second call, which compiles nothing."""
    given = {k: jnp.asarray(case[k]) for k in ("linear", "alpha") if k in case}
    x, y = jnp.asarray(case["x"]), jnp.asarray(case["y"])
    a, b = (case.get(k) for k in "ab")
    if "rho" in case:
        more = {"rho_a": case["rho"], "rho_b": case["rho"], **more}
    options = {"tolerance": TOLERANCE, "inner_tolerance": INNER, **more}
    for _ in range(2):
        begin = time.perf_counter()
        out = solve_quadratic(x, y, a, b, epsilon=case["epsilon"], **given, **options)
        out = jax.block_until_ready(out)
        seconds = time.perf_counter() - begin
    facts = {
        "seconds": seconds,
        "converged": bool(out.converged),
        "steps": int(out.steps),
        "value": float(out.value),
    }
    return np.asarray(out.plan()), facts


def theirs(peer: Any, name: str, case: data.Case, **options: Any):
    """Plan and facts of a peer, or None and why there is none."""
    arrays = {k: case[k] for k in ("x", "y", "linear", "a", "b") if k in case}
    try:
        out, facts = peer.call(name, arrays, options, limit=LIMIT)
    except peer_process.PeerError as error:
        return None, {"failed": str(error).splitlines()[-1][:100]}
    return out["plan"], facts


def compare(case: data.Case, peers: str | None) -> list[dict]:
    """One row for each solver of a balanced problem."""
    found = {"jaxsns": ours(case), "jaxsns, 1e-3": ours(case, **LOOSE)}
    if peers is not None:
        options = {"epsilon": case["epsilon"], "alpha": case.get("alpha", 1.0)}
        runs = [("POT", "pot", {"max_iter": 1000, "tol": 1e-9})]
        if "linear" not in case:
            runs.append(("OTT-JAX", "ott", {"max_iter": 200}))
        for label, name, more in runs:
            with peer_process.start(peers, "experiments.gromov.worker") as peer:
                found[label] = theirs(peer, name, case, **options, **more)
    rows = []
    for label, (plan, facts) in found.items():
        row = {"problem": case["name"], "solver": label, **facts}
        if plan is not None:
            row |= judge.judge(case, plan)
            if "points_y" in case:
                row["foscttm"] = judge.foscttm(case, plan)
        rows.append(row)
        print(row, flush=True)
    return rows


def compare_unbalanced(case: data.Case, peers: str | None) -> list[dict]:
    """The same with penalties."""
    found = {"jaxsns": ours(case)}
    if peers is not None:
        # Its objective is ours over alpha, with whole penalties in place of halves.
        alpha = case["alpha"]
        options = {
            "epsilon": case["epsilon"] / (2 * alpha),
            "rho": case["rho"] / (2 * alpha),
            "alpha": (1 - alpha) / alpha,
        }
        with peer_process.start(peers, "experiments.gromov.worker") as peer:
            found["POT"] = theirs(peer, "pot_unbalanced", case, **options)
    rows = []
    for label, (plan, facts) in found.items():
        row = {"problem": case["name"], "solver": label, **facts}
        if plan is not None:
            row |= {"objective": judge.unbalanced(case, plan), "mass": plan.sum()}
        rows.append(row)
        print(row, flush=True)
    return rows


def gradient(n: int) -> dict:
    """Time of a gradient of the plan beside that of the solve, and its error."""
    case = data.rolls(n)
    weights = jnp.asarray(np.random.default_rng(3).normal(size=(n, n)))
    y = jnp.asarray(case["y"])
    step = np.random.default_rng(4).normal(size=(n, n))
    step = jnp.asarray(step + step.T) * jnp.asarray(case["x"])

    def of_plan(x, tolerance=1e-10):
        out = solve_quadratic(
            x, y, epsilon=2e-2, tolerance=tolerance, inner_tolerance=1e-12
        )
        return jnp.sum(weights * out.plan())

    x = jnp.asarray(case["x"])
    alone, both = jax.jit(of_plan), jax.jit(jax.value_and_grad(of_plan))
    forward, _, _ = record.timed(alone, x, repeats=2)
    all_of_it, _, (_, slope) = record.timed(both, x, repeats=2)
    h = 1e-5
    wanted = (alone(x + h * step) - alone(x - h * step)) / (2 * h)
    got = jnp.sum(slope * step)
    return {
        "problem": f"gradient of the plan, {n}",
        "forward_seconds": forward,
        "gradient_seconds": all_of_it - forward,
        "relative_error": float(jnp.abs(got / wanted - 1)),
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", help="a Python that has POT and OTT-JAX")
    parser.add_argument("--snare", type=Path, help="folder of the SNARE-seq arrays")
    parser.add_argument("--large", action="store_true", help="n = 2000 as well")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    cases = [data.rolls(400), data.blocks(1000)]
    if arguments.snare is not None:
        cases.insert(0, data.snare(arguments.snare))
    if arguments.large:
        cases.append(data.rolls(2000))
    content: dict[str, Any] = {"environment": record.environment(), "rows": []}
    content["environment"]["load"] = os.getloadavg()
    for case in cases:
        content["rows"] += compare(case, arguments.peers)
        record.save_json(FOLDER / "results.json", content)
    content["rows"] += compare_unbalanced(data.grown(100), arguments.peers)
    content["rows"].append(gradient(500))
    print(content["rows"][-1], flush=True)
    record.save_json(FOLDER / "results.json", content)
    pictures.draw(content["rows"], FOLDER / "gromov.png")


if __name__ == "__main__":
    main()
