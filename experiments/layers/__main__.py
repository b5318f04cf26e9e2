"""Run as `python -m experiments.layers`: about three minutes on two cores.

Classifies digits, given as sets of points, with transport pooling in plain JAX, flax
and equinox, and measures a training step over 64 problems of 128 x 128. Rewrites the
README's tables and `results.json`.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import importlib.util  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402

from experiments import record  # noqa: E402
from experiments.layers import batch_step, data, plain, report  # noqa: E402
from experiments.layers.train import EPOCHS, train  # noqa: E402

FOLDER, SEEDS = Path(__file__).parent, (0, 1, 2)


def models(key: jax.Array, sets: data.Sets):
    """(name, function of parameters, parameters) of what can be imported."""
    yield "mean pooling, plain JAX", plain.logits_of_mean, plain.make(key)
    yield "transport pooling, plain JAX", plain.logits, plain.make(key)
    if importlib.util.find_spec("flax"):
        from experiments.layers import flax_model as model

        start = model.make(key, sets.points[:2], sets.mask[:2])
        yield "transport pooling, flax", model.logits, start
    if importlib.util.find_spec("equinox"):
        from experiments.layers import equinox_model

        parameters, rest = equinox_model.make(key)
        logits = jax.tree_util.Partial(equinox_model.logits, rest)
        yield "transport pooling, equinox", logits, parameters


def main() -> None:
    """Run everything and write it down."""
    runs = []
    for seed in SEEDS:
        sets, test = data.load(seed)
        for name, logits, parameters in models(jax.random.key(seed), sets):
            run = {"model": name, "seed": seed}
            runs.append(run | train(logits, parameters, sets, test, seed))
            print(runs[-1], flush=True)
    results = {
        "epochs": EPOCHS,
        "runs": runs,
        "steps": batch_step.measure(),
        "environment": record.environment(),
    }
    record.save_json(FOLDER / "results.json", results)
    (FOLDER / "README.md").write_text(report.readme(results))
    print(report.readme(results))


if __name__ == "__main__":
    main()
