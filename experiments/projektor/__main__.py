"""Run as `python -m experiments.projektor`: under two minutes on two cores.

Predicts how well mixtures of three sources train a model, chooses one by the
calibrated gradient, and rewrites the results beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import numpy as np  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from experiments import record  # noqa: E402
from experiments.projektor import choose, data, model, report  # noqa: E402
from experiments.projektor.learner import mean_accuracy  # noqa: E402

FOLDER = Path(__file__).parent
SEEDS = (0, 1, 2, 3, 4)
DRAWS = 5  # of images when a mixture is judged


def grid(parts: int = 10) -> np.ndarray:
    """[k, 3] all mixtures in steps of 1 / parts."""
    return np.array(
        [
            [i, j, parts - i - j]
            for i in range(parts + 1)
            for j in range(parts + 1 - i)
        ]
    ) / float(parts)  # fmt: skip


def judge(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    """How far off a prediction is, and whether it ranks mixtures rightly."""
    constant = np.ptp(predicted) == 0
    rank = 0.0 if constant else float(spearmanr(predicted, measured).statistic)
    error = float(np.mean(np.abs(predicted - measured)))
    return {"error": error, "rank correlation": rank}


def run_seed(seed: int, mixtures: np.ndarray) -> dict[str, Any]:
    """Pilots, predictions, choices and the truth of one draw of the data."""
    split = data.load(seed)
    pilot = choose.try_mixtures(split, seed)

    def truth(p) -> float:
        # Other draws than those of the pilots.
        draws = np.asarray(p)
        return mean_accuracy(
            split.sources, draws, data.SIZE, split.test, DRAWS, seed + 1000
        )

    measured = np.array([truth(p) for p in mixtures])
    found = choose.distances(pilot.setting, mixtures)
    predicted = {
        form: choose.predictions(pilot, form, mixtures, found, data.SIZE)
        for form in model.FORMS
    }
    predicted["projektor, not projected"] = choose.predictions(
        pilot, "projektor", mixtures, found, choose.SIZES[1]
    )
    predicted["mean of the pilots"] = np.full(len(mixtures), pilot.accuracy[1].mean())
    mixtures_chosen = choose.choices(split, pilot, seed)
    mixtures_chosen["best on the grid"] = mixtures[int(np.argmax(measured))]
    return {
        "seed": seed,
        "gradient errors": [
            choose.gradient_error(pilot.setting, p) for p in pilot.mixtures[:5]
        ],
        "choices": {
            name: {"mixture": np.asarray(p).tolist(), "accuracy": truth(p)}
            for name, p in mixtures_chosen.items()
        },
        "predictions": {name: judge(x, measured) for name, x in predicted.items()},
        "distances": found.tolist(),
        "predicted": predicted["projektor"].tolist(),
        "measured": measured.tolist(),
    }


def main() -> None:
    """Predict, choose, print, and write results.json, README.md and mixtures.png."""
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    mixtures = grid()
    runs = []
    for seed in SEEDS:
        runs.append(run_seed(seed, mixtures))
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    results = {
        "environment": record.environment(),
        "seconds": time.perf_counter() - start,
        "sources": data.SOURCES,
        "size": data.SIZE,
        "pilot sizes": choose.SIZES,
        "tried": choose.TRIED,
        "wrong": data.WRONG,
        "low share": data.LOW_SHARE,
        "step": model.STEP,
        "grid": mixtures.tolist(),
        "runs": runs,
    }
    record.save_json(FOLDER / "results.json", results)
    report.write_readme(FOLDER / "README.md", results)
    report.draw(FOLDER / "mixtures.png", results)
    print(report.answer(results) + "\n\n" + report.choice_table(results))
    print("\n" + report.prediction_table(results))
    print(f"\nwrote results.json, README.md and mixtures.png to {FOLDER.name}")
    print(f"done in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
