"""Batches, warm starts, colour transfer: `jax.vmap(solve)` beside loops and OTT-JAX.

    python -m experiments.benchmarks.batches --ott-python PATH --only WORD --seeds 0 1

PATH is the Python of an environment with `ott-jax` (0.6.0 wants jax < 0.9, hence one
of its own); without it only what runs here is measured. `--pot-python` is one with
POT, for the colour transfer, which wants scikit-image and matplotlib here. Prints
the tables and the bars, and writes `docs/benchmarks/batches.json`; with `--add` it
keeps the cases there that were not run again, with the machine they were run on.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # LAPACK against XLA's threads

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments import record
from experiments.benchmarks import (
    batch_cases,
    batch_ours,
    batch_peers,
    colour,
    warm_start,
)
from experiments.benchmarks.batch_cases import Case
from experiments.benchmarks.batch_judge import gradient_error, worst_error
from experiments.benchmarks.batch_problems import Batch
from experiments.benchmarks.batch_rounds import ROUNDS, Contender, measure
from experiments.benchmarks.options import wanted
from experiments.benchmarks.peer_process import PeerProcess, start

RESULTS = Path(__file__).parents[2] / "docs" / "benchmarks" / "batches.json"
WORKER = "experiments.benchmarks.ott_batch_worker"
POT_WORKER = "experiments.benchmarks.cpu_worker"


def _contender(
    name: str, case: Case, batch: Batch, ott: PeerProcess | None
) -> Contender | None:
    if name.startswith("OTT"):
        if ott is None:
            return None
        mode = name.split()[1]
        return batch_peers.contender(ott, batch, case.tolerance, case.settings, mode)
    if case.gradient:
        return batch_ours.differentiated(batch, case.tolerance)
    make = {
        "jaxsns vmap": batch_ours.vmapped,
        "jaxsns loop": batch_ours.looped,
        "products": batch_ours.products,
    }[name]
    return make(batch, case.tolerance)


def _judged(case: Case, batch: Batch, contender: Contender) -> dict[str, Any]:
    found = contender.results()
    error = worst_error(batch, found["f"], found["g"])
    out: dict[str, Any] = {"error": error, "reached": error <= case.tolerance}
    if case.gradient:
        out["gradient_error"] = gradient_error(
            batch, found["f"], found["g"], found["gradient"]
        )
    return out


def measure_case(
    case: Case, seed: int, ott: PeerProcess | None, rounds: int
) -> list[dict[str, Any]]:
    """Records of all contenders of one case, and of its bars (kind "bar")."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    jax.clear_caches()
    batch = case.make(seed=seed).cast(case.dtype)
    made = [_contender(name, case, batch, ott) for name in case.contenders]
    contenders = [x for x in made if x is not None]
    common = {
        "case": case.name, "seed": seed, "dtype": case.dtype,
        "tolerance": case.tolerance,
    }  # fmt: skip
    timed = measure(contenders, rounds)
    ours = timed[0]["seconds"]
    records: list[dict[str, Any]] = [
        {
            "kind": "time", **common, **times, "ratio": times["seconds"] / ours,
            **_judged(case, batch, contender),
        }
        for contender, times in zip(contenders, timed, strict=True)
    ]  # fmt: skip
    by_name = {x["contender"]: x for x in records}
    for bar in case.bars:
        if bar.top in by_name and bar.bottom in by_name:
            top, bottom = by_name[bar.top], by_name[bar.bottom]
            ratio = top["seconds"] / bottom["seconds"]
            right = by_name["jaxsns vmap"]["reached"]
            records.append(
                {
                    "kind": "bar", **common, "bar": bar.describe(), "measured": ratio,
                    "met": bool(bar.met(ratio) and right),
                    # Time to give up at is a lower bound of the time to reach.
                    "peer_reached": bool(top["reached"] and bottom["reached"]),
                }
            )  # fmt: skip
    return records


def time_table(records: Sequence[dict[str, Any]]) -> str:
    """Times of all contenders."""
    rows = [
        [
            x["case"], x["seed"], f"{x['dtype']} {x['tolerance']:.0e}", x["contender"],
            1e3 * x["seconds"], x["repeats"], x["ratio"], f"{x['error']:.1e}",
            "met" if x["reached"] else "MISS",
            f"{x['gradient_error']:.0e}" if "gradient_error" in x else "",
            x.get("compile_s", 0.0), x.get("setting", ""), x.get("iterations") or "",
        ]
        for x in records
        if x["kind"] == "time"
    ]  # fmt: skip
    headers = [
        "case", "seed", "tolerance", "contender", "median, ms", "runs", "over ours",
        "worst error", "reached", "gradient error", "compile, s", "setting", "steps",
    ]  # fmt: skip
    return record.table(rows, headers)


def bar_table(records: Sequence[dict[str, Any]]) -> str:
    """Bars, and what was measured."""
    rows = [
        [
            x["case"], x["seed"], f"{x['dtype']} {x['tolerance']:.0e}", x["bar"],
            ("" if x["peer_reached"] else "> ") + f"{x['measured']:.2f}",
            "met" if x["met"] else "MISSED",
        ]
        for x in records
        if x["kind"] == "bar"
    ]  # fmt: skip
    return record.table(
        rows, ["case", "seed", "tolerance", "bar", "measured", "verdict"]
    )


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure what `options` selects: ott_python, pot_python, only, seeds, rounds."""
    ott = start(options.ott_python, WORKER) if options.ott_python else None
    pot = start(options.pot_python, POT_WORKER) if options.pot_python else None
    records: list[dict[str, Any]] = []
    try:
        for case in batch_cases.all_cases():
            label = f"{case.name}, {case.dtype}"
            if not wanted(options, label):
                continue
            for seed in options.seeds:
                print(f"{label}, seed {seed}", flush=True)
                new = measure_case(case, seed, ott, options.rounds)
                print(time_table(new), flush=True)
                records += new
        records += warm_start.run(options, ott)
        records += colour.run(options, ott, pot)
    finally:
        for peer in (ott, pot):
            if peer is not None:
                peer.close()
    return records


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description="Benchmark of batches.")
    parser.add_argument("--ott-python", help="Python with ott-jax and jax < 0.9")
    parser.add_argument("--pot-python", help="Python with POT, for colour transfer")
    parser.add_argument(
        "--only", nargs="+", default=[], help="parts of cases' names or dtypes"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--add", action="store_true", help="keep what the output has of other cases"
    )
    return parser.parse_args(arguments)


def with_earlier(results: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Results with an earlier run's of other cases, each run with its machine."""
    what = lambda x: (x["case"], x["seed"], x["dtype"], x["tolerance"])
    again = {what(x) for x in results["records"]}
    runs = [{k: earlier[k] for k in ("environment", "records")}]
    old = earlier.get("earlier", [])
    # A single run in older files.
    runs += [old] if isinstance(old, dict) else old
    kept = [
        run | {"records": [x for x in run["records"] if what(x) not in again]}
        for run in runs
    ]
    return results | {"earlier": [run for run in kept if run["records"]]}


def main() -> None:
    """Measure, print, and write the results."""
    options = parse()
    records = run(options)
    facts = record.environment()
    print(record.describe_environment(facts))
    print(time_table(records))
    print(bar_table(records))
    results: dict[str, Any] = {"environment": facts, "records": records}
    if options.add and options.output.exists():
        results = with_earlier(results, json.loads(options.output.read_text()))
    record.save_json(options.output, results)


if __name__ == "__main__":
    main()
