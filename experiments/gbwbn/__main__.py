"""Run as `python -m experiments.gbwbn`: under two minutes on two cores.

Trains the small SPD classifier with eight normalisations on covariances of many and of
few samples, five seeds each. Writes `results.json` and `accuracy.png` beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import argparse  # noqa: E402
import functools  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from experiments import record  # noqa: E402
from experiments.gbwbn import model  # noqa: E402

SAMPLES = (200, 24, 6)
SEEDS = 5
EVERY = 5  # of that many losses one is kept
FOLDER = Path(__file__).parent


def condition(x: np.ndarray) -> float:
    """Median condition number of matrices [n, d, d]."""
    return float(np.median(np.linalg.cond(x)))


def run() -> list[dict]:
    """One row for each number of samples and normalisation."""
    rows = []
    for samples in SAMPLES:
        sets = [model.make_data(seed, samples) for seed in range(SEEDS)]
        data = {k: jnp.asarray(np.stack([s[k] for s in sets])) for k in sets[0]}
        for variant in model.VARIANTS:
            start = time.perf_counter()
            fit = _fit(variant)
            losses, accuracy = fit(data, jnp.arange(SEEDS))
            rows.append(
                {
                    "samples": samples,
                    "condition": condition(sets[0]["test"]),
                    "variant": variant,
                    "accuracy": np.round(accuracy, 4).tolist(),
                    "loss": np.asarray(losses)
                    .mean(axis=0)[::-EVERY][::-1]
                    .round(4)
                    .tolist(),
                    "seconds": time.perf_counter() - start,
                }
            )
            print(
                f"  {samples} samples, {variant}: {np.mean(accuracy):.3f}", flush=True
            )
    return rows


@functools.cache
def _fit(variant: str):
    fit = functools.partial(model.fit, variant, model.STEPS)
    # One seed after another: see `jaxsns.linear.lapack` on batches of decompositions.
    return jax.jit(lambda data, seeds: jax.lax.map(lambda x: fit(*x), (data, seeds)))


def draw(rows: list[dict], path: Path) -> None:
    """Accuracy of every seed, and the mean training loss."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    left, *others = figure.subplots(
        1, 1 + len(SAMPLES), width_ratios=[2] + [1] * len(SAMPLES)
    )
    for number, variant in enumerate(model.VARIANTS):
        mine = [row for row in rows if row["variant"] == variant]
        for place, row in enumerate(mine):
            x = place + 0.1 * (number - 3.5)
            y = 100 * np.asarray(row["accuracy"])
            left.plot(np.full(len(y), x), y, ".", color=f"C{number}", alpha=0.6)
            label = variant if place == 0 else None
            left.plot(x, y.mean(), "_", ms=14, color=f"C{number}", label=label)
            steps = model.STEPS - EVERY * np.arange(len(row["loss"]))[::-1]
            others[place].semilogy(steps, row["loss"], color=f"C{number}")
    left.set_xticks(range(len(SAMPLES)), [str(n) for n in SAMPLES])
    left.set(xlabel="samples in a covariance", ylabel="test accuracy / %")
    for axis, samples in zip(others, SAMPLES, strict=True):
        axis.set(title=f"{samples} samples", xlabel="steps of Adam")
        axis.set(ylabel="training loss / nat")
    for axis in (left, *others):
        axis.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    figure.suptitle("Normalisation in a small classifier of 12 x 12 covariances")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Train, print the table, write the record and the figure."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER)
    folder = parser.parse_args().output
    start = time.perf_counter()
    facts = record.environment()
    print(record.describe_environment(facts))
    rows = run()
    table = [
        [
            row["samples"],
            f"{row['condition']:.0e}",
            row["variant"],
            f"{100 * np.mean(row['accuracy']):.1f}",
            f"{100 * np.std(row['accuracy'], ddof=1):.1f}",
            " ".join(f"{100 * x:.1f}" for x in row["accuracy"]),
            f"{row['loss'][-1]:.2f}",
        ]
        for row in rows
    ]
    headers = ["samples", "condition", "normalisation", "accuracy, %"]
    headers += ["spread, %", "each seed", "last loss"]
    print("\n" + record.table(table, headers))
    record.save_json(folder / "results.json", {"environment": facts, "rows": rows})
    draw(rows, folder / "accuracy.png")
    print(f"\ndone in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
