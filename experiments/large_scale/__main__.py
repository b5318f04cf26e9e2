"""Run the large problems, record them, and write the table and the plot.

    python -m experiments.large_scale            everything, about 25 minutes on 2 cores
    python -m experiments.large_scale --quick    n = 4,000 only, two minutes
    python -m experiments.large_scale --only 50000
    python -m experiments.large_scale --colour   two photographs of full size

What was recorded before and is not run again stays.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from experiments import record
from experiments.large_scale import passes, report

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
# n, epsilons in 2-D, epsilons in 10-D, methods, repeats
SIZES = (
    (20_000, (1e-2, 1e-3, 1e-4), (1e-2, 1e-3), ("auto", "sinkhorn"), 3),
    (50_000, (1e-2, 1e-3), (1e-2, 1e-3), ("auto", "sinkhorn"), 1),
    (100_000, (1e-2,), (1e-2,), ("auto", "sinkhorn"), 1),
)
FACTOR = 3  # Sinkhorn may make so many times the passes of `auto`, then it is ended


def cases(quick: bool) -> list[dict]:
    """Every solve, `auto` before what is compared with it."""
    out = []
    sizes = (
        ((4_000, (1e-2, 1e-3), (1e-2,), ("auto", "sinkhorn"), 3),) if quick else SIZES
    )
    for n, plane, space, methods, repeats in sizes:
        for d, epsilons in ((2, plane), (10, space)):
            for epsilon in epsilons:
                for method in methods:
                    out.append(
                        dict(
                            n=n, d=d, epsilon=epsilon, method=method, dtype="float32",
                            tolerance=1e-4, seed=0, steps=1000,
                            repeats=repeats if method == "auto" else 1,
                        )
                    )  # fmt: skip
    if not quick:
        for method in ("auto", "sinkhorn", "plain"):
            out.append(
                dict(
                    n=10_000, d=2, epsilon=1e-3, method=method, dtype="float64",
                    tolerance=1e-8, seed=0, repeats=1, steps=1000,
                )
            )  # fmt: skip
    return out


def name(case: dict) -> str:
    """Words by which a result is found again."""
    keys = ("n", "d", "epsilon", "dtype", "tolerance", "method")
    return " ".join(str(case[k]) for k in keys)


def run(case: dict) -> dict:
    """Solve in a new process."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments.large_scale.case", json.dumps(case)],
        capture_output=True,
        text=True,
        env=dict(os.environ, OPENBLAS_NUM_THREADS="1"),
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="words that a case must have")
    parser.add_argument("--colour", action="store_true")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    if options.colour:
        from experiments.large_scale import colour

        results["colour"] = colour.main()
    else:
        known = {} if options.quick else results["cases"]
        for case in cases(options.quick):
            if options.only and options.only not in name(case):
                continue
            if case["method"] != "auto":
                before = known.get(name({**case, "method": "auto"}))
                if before is not None:
                    case["steps"] = FACTOR * before["passes"]
            print(name(case), flush=True)
            result = run(case)
            known[name(case)] = result
            print("   ", report.line(result), flush=True)
            if not options.quick:
                results["environment"] = record.environment()
                record.save_json(RESULTS, results)
        if options.quick:
            return
        if not options.only:
            results["passes"] = passes.main()
    results["environment"] = record.environment()
    record.save_json(RESULTS, results)
    report.write(results, HERE)


if __name__ == "__main__":
    main()
