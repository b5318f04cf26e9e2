"""Run as `python -m experiments.paper_table1`: some three minutes on two cores.

Solves the problems of Table 1 of the SNS paper to machine accuracy by published SNS,
Sinkhorn and our own method, and rewrites the results beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402

from experiments import measure, record  # noqa: E402
from experiments.paper_table1 import cases, history, report  # noqa: E402

FOLDER = Path(__file__).parent


def plain(result: dict[str, Any]) -> dict[str, Any]:
    """Leave the potentials out of what is written down."""
    return {key: value for key, value in result.items() if key not in ("f", "g")}


def solve_case(case: cases.Case) -> tuple[list[dict], list[dict], dict[str, list]]:
    """All methods on one problem: the runs, the SNS settings tried, the histories."""
    problem = case.make()
    pass_seconds = record.pass_time(problem[0], cases.EPSILON)
    common = (problem, cases.EPSILON, cases.TOLERANCE)
    tried = []
    for warm_up, kept in case.settings:
        options, limit = cases.sns_options(warm_up, kept)
        result = plain(measure.measure(*common, options, limit, repeats=5, budget=2))
        setting = {"problem": case.name, "warm_up": warm_up, "kept": kept}
        tried.append({**setting, **result})
        print(f"  SNS {warm_up}/{kept}: {result['status']}", flush=True)
    shown = next((run for run in tried if run["met"]), tried[-1])
    runs = [{**shown, "method": "SNS, as published", "paper": case.sns}]
    options, limit = cases.sns_options(shown["warm_up"], shown["kept"])
    histories = {
        "SNS, as published": history.of_sns(problem, cases.EPSILON, options, limit)
    }
    for name, (method, limit) in cases.other_methods().items():
        result = plain(measure.measure(*common, method, limit, repeats=5, budget=5))
        paper = case.sinkhorn if name == "Sinkhorn, plain" else None
        runs.append({"problem": case.name, "method": name, "paper": paper, **result})
        histories[name] = history.of_limits(*common, method, result["sweeps"])
        print(f"  {name}: {result['status']}", flush=True)
    runs = [{**run, "pass_seconds": pass_seconds} for run in runs]
    return runs, tried, histories


def main() -> None:
    """Solve, print, and write results.json, README.md and error_by_iteration.png."""
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    results: dict[str, Any] = {
        "environment": record.environment(),
        "epsilon": cases.EPSILON,
        "tolerance": cases.TOLERANCE,
        "runs": [],
        "tried": [],
        "histories": {},
    }
    for number, case in enumerate(cases.CASES, start=1):
        seconds = time.perf_counter() - start
        print(f"[{number} of {len(cases.CASES)}, {seconds:.0f} s] {case.name}")
        runs, tried, histories = solve_case(case)
        results["runs"] += runs
        results["tried"] += tried
        results["histories"][case.name] = histories
    record.save_json(FOLDER / "results.json", results)
    report.write_readme(FOLDER / "README.md", results)
    report.draw(FOLDER / "error_by_iteration.png", results["histories"])
    print("\n" + report.main_table(results["runs"]))
    print("\n" + report.tried_table(results["tried"]))
    print(f"\nwrote results.json, README.md and error_by_iteration.png to {FOLDER}")
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
