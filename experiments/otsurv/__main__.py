"""Run as `python -m experiments.otsurv`: two minutes on two cores that are free.

Trains four poolings on synthetic bags, compares our layer with the published one, and
rewrites the results beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402

from experiments import record  # noqa: E402
from experiments.otsurv import compare, model, report, train  # noqa: E402

FOLDER = Path(__file__).parent
SEEDS = range(5)


def main() -> None:
    """Compare, train, and write results.json, README.md and otsurv.png."""
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    print("the layer: agreement and price")
    results: dict[str, Any] = {
        "environment": record.environment(),
        "agreement": compare.agreement(),
        "costs": compare.costs(),
        "runs": [],
    }
    for pooling in model.POOLINGS:
        print(f"[{time.perf_counter() - start:.0f} s] pooling: {pooling}")
        train.fit(pooling, 0, epochs=1)  # compiles, so that times are comparable
        for seed in SEEDS:
            run = train.fit(pooling, seed)
            results["runs"].append(run)
            print(f"  seed {seed}: C-index {run['c_index']:.3f}", flush=True)
    results["load"] = os.getloadavg()[0]
    record.save_json(FOLDER / "results.json", results)
    report.write_readme(FOLDER / "README.md", results)
    report.draw(FOLDER / "otsurv.png", results)
    print("\n" + report.pooling_table(results["runs"]))
    print("\n" + report.agreement_table(results["agreement"]))
    print("\n" + report.cost_table(results["costs"]))
    print(f"\nwrote results.json, README.md and otsurv.png to {FOLDER}")
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
