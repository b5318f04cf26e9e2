"""The README from the results."""

import statistics
from typing import Any

from experiments import record

TEXT = """# Layers: transport inside models

**Question.** Do the layers drop into plain JAX, flax and equinox models as they are,
with batches of sets of different sizes? Does pooling by transport classify better than
mean pooling? What does a training step cost?

**Command.** `pip install -e '.[experiments,layers]' && python -m experiments.layers`
(rewrites this file and `results.json`; what is not installed is left out)

**Answer.** Yes: the model is written three times ([plain](plain.py),
[flax](flax_model.py), [equinox](equinox_model.py)), and the same call pools in each:
`jaxsns.transport_pooling(features, prototypes, where=mask)`. Digits of 8 x 8, each a
set of its lit pixels, {epochs} epochs, batches of 64, float32:

{models}

Pooling by transport is {gain:+.1f} points of accuracy ahead of mean pooling in plain
JAX, the mean of {seeds} seeds. {failed} steps had a loss that was not a number.

## A step over 64 problems of 128 x 128

Normal points in 8 dimensions, float32, default tolerance, median of 7 or of what ten
seconds allow; the first call compiles.

{steps}

{environment}
"""


def _mean(runs: list[dict[str, Any]], model: str, key: str) -> list[float]:
    return [run[key] for run in runs if run["model"] == model]


def readme(results: dict[str, Any]) -> str:
    """Markdown."""
    runs = results["runs"]
    names = list(dict.fromkeys(run["model"] for run in runs))
    rows = []
    for name in names:
        accuracy = [100 * x for x in _mean(runs, name, "accuracy")]
        step = statistics.median(_mean(runs, name, "step_ms"))
        first = statistics.median(_mean(runs, name, "first_step_s"))
        spread = f"{statistics.mean(accuracy):.1f} ± {statistics.stdev(accuracy):.1f}"
        rows.append([name, spread, f"{step:.1f}", f"{first:.1f}"])
    head = ["model", "accuracy / %", "step / ms", "first step / s"]
    means = {name: statistics.mean(_mean(runs, name, "accuracy")) for name in names}
    steps = [
        [
            row["loss"],
            row["epsilon"],
            f"{row['loss_ms']:.1f}",
            f"{row['value_and_grad_ms']:.1f}",
            f"{row['first_call_s']:.1f}",
        ]
        for row in results["steps"]
    ]
    titles = [
        "loss",
        "epsilon",
        "loss / ms",
        "loss and gradient / ms",
        "first call / s",
    ]
    return TEXT.format(
        models=record.table(rows, head),
        steps=record.table(steps, titles),
        gain=100
        * (means["transport pooling, plain JAX"] - means["mean pooling, plain JAX"]),
        seeds=len({run["seed"] for run in runs}),
        failed=sum(run["failed"] for run in runs),
        epochs=results["epochs"],
        environment=record.describe_environment(results["environment"]),
    )
