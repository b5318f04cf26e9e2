"""Run as `python -m experiments.sp2ot`: under two minutes on two cores.

Clusters digits with long-tailed classes by k-means and with pseudo-labels from
balanced, unbalanced, partial (P2OT) and semantic (SP2OT) transport, and rewrites the
results beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import functools  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from experiments import record  # noqa: E402
from experiments.sp2ot import cluster, data, labels, report, scores  # noqa: E402
from experiments.sp2ot.kmeans import kmeans, seeds  # noqa: E402
from experiments.sp2ot.semantic import similarity  # noqa: E402

FOLDER = Path(__file__).parent
SEEDS = (0, 1, 2, 3, 4)
IMBALANCES = (1.0, 10.0, 40.0)
SHOWN = 10.0  # imbalance of the curves
STRENGTH = 3.0  # of the semantic reward, in units of -log p
LIMIT = 10  # steps of majorise-minimise


@functools.partial(jax.jit, static_argnums=0)
def cluster_by(method: str, features, start, similar) -> cluster.Run:
    """Train a head with one kind of labels."""

    def label(cost, share):
        if method == "balanced OT":
            return labels.balanced(cost)
        if method == "unbalanced OT":
            return labels.partial(cost, jnp.ones_like(share))
        if method == "P2OT":
            return labels.partial(cost, share)
        strength = jnp.asarray(STRENGTH, cost.dtype)
        return labels.semantic(cost, share, similar, strength, LIMIT)

    return cluster.train(features, start, label)


METHODS = ("balanced OT", "unbalanced OT", "P2OT", "SP2OT")


def run_seed(seed: int, imbalance: float) -> list[dict[str, Any]]:
    """All methods on one draw of the data."""
    features, truth = data.load(seed, imbalance)
    found = kmeans(features, data.CLASSES, seed)
    start = seeds(features, data.CLASSES, np.random.default_rng([seed, 9]))
    common = {"seed": seed, "imbalance": imbalance}
    runs = [{"method": "k-means", **common, **scores.all_scores(truth, found)}]
    similar = jnp.asarray(similarity(features))
    for method in METHODS:
        began = time.perf_counter()
        run = cluster_by(method, jnp.asarray(features), jnp.asarray(start), similar)
        run = jax.tree.map(np.asarray, run)
        seconds = time.perf_counter() - began
        history = [scores.accuracy(truth, x) for x in run.history]
        runs.append(
            {
                "method": method,
                **common,
                **scores.all_scores(truth, run.found),
                "solves": int(run.steps.sum()),
                "rounds not converged": int((~run.converged).sum()),
                "seconds": seconds,
                "history": [round(x, 4) for x in history],
            }
        )
    return runs


def main() -> None:
    """Cluster, print, and write results.json, README.md and scores.png."""
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    runs = []
    for imbalance in IMBALANCES:
        for seed in SEEDS:
            runs += run_seed(seed, imbalance)
        print(
            f"imbalance {imbalance:g}: {time.perf_counter() - start:.0f} s", flush=True
        )
    sizes = [data.class_sizes(i) for i in IMBALANCES]
    results = {
        "environment": record.environment(),
        "seconds": time.perf_counter() - start,
        "seeds": SEEDS,
        "imbalances": IMBALANCES,
        "shown imbalance": SHOWN,
        "methods": ("k-means", *METHODS),
        "sizes": [[int(x.min()), int(x.max())] for x in sizes],
        "images": data.IMAGES,
        "rounds": cluster.ROUNDS,
        "strength": STRENGTH,
        "limit": LIMIT,
        "runs": runs,
    }
    record.save_json(FOLDER / "results.json", results)
    report.write_readme(FOLDER / "README.md", results)
    report.draw(FOLDER / "scores.png", results)
    print(report.answer(results) + "\n\n" + report.scores_table(results))
    print(f"\nwrote results.json, README.md and scores.png to {FOLDER.name}")
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
