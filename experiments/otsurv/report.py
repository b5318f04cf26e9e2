"""The README and the figure, written from the results of the run alone."""

import statistics
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import record
from experiments.otsurv import data, layer, model, train

COMMAND = "python -m experiments.otsurv"
BEST = "true hazard"
POOLING_HEADERS = (
    "pooling",
    "C-index, held out",
    "least to most",
    "minus mean pooling",
    "C-index, training",
    "numbers trained",
    "training / s",
)
AGREEMENT_HEADERS = (
    "share",
    "layer",
    "dtype",
    "plan, largest difference",
    "plan, relative",
    "gradient, relative",
)
COST_HEADERS = (
    "bags x patches",
    "layer",
    "scalings",
    "forward + gradient / ms",
    "times ours",
    "memory / MB",
    "times ours ",
    "compilation / s",
    "plan, relative",
    "gradient, relative",
)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def by_pooling(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group runs by pooling, the seeds in one order."""
    out: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        out.setdefault(run["pooling"], []).append(run)
    return {name: out[name] for name in model.POOLINGS if name in out}


def against(runs: list[dict[str, Any]], name: str, other: str) -> list[float]:
    """Difference of the held-out C-index of two poolings, seed by seed."""
    groups = by_pooling(runs)
    pairs = zip(groups[name], groups[other], strict=True)
    return [mine["c_index"] - yours["c_index"] for mine, yours in pairs]


def pooling_table(runs: list[dict[str, Any]]) -> str:
    """C-index of each pooling, mean and standard deviation over seeds."""
    groups = by_pooling(runs)
    rows = []
    for name, mine in groups.items():
        held_out = [run["c_index"] for run in mine]
        rows.append(
            [
                name,
                _spread(held_out),
                f"{min(held_out):.3f} to {max(held_out):.3f}",
                "" if name == "mean" else _spread(against(runs, name, "mean")),
                _spread([run["c_index_training"] for run in mine]),
                f"{mine[0]['parameters']:,}",
                f"{statistics.median(run['seconds'] for run in mine):.1f}",
            ]
        )
    best = [run["c_index_best"] for run in groups["mean"]]
    span = f"{min(best):.3f} to {max(best):.3f}"
    rows.append([BEST, _spread(best), span, "", "", "", ""])
    return record.table(rows, POOLING_HEADERS)


def agreement_table(rows: list[dict[str, Any]]) -> str:
    """Differences from the published loop."""
    keys = ("share", "layer", "dtype", "plan", "plan_relative", "gradient_relative")
    return record.table(
        [[f"{row['share']:g}", *(row[key] for key in keys[1:])] for row in rows],
        AGREEMENT_HEADERS,
    )


def _times(x: float) -> str:
    return f"{x:.0f}" if x >= 10 else f"{x:.1f}"


def _ours(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, Any]:
    same = lambda x: (x["bags"], x["patches"]) == (row["bags"], row["patches"])
    return next(x for x in rows if same(x) and x["layer"] == "ours")


def cost_table(rows: list[dict[str, Any]]) -> str:
    """Time and memory of the layers."""
    return record.table(
        [
            [
                f"{row['bags']} x {row['patches']:,}",
                row["layer"],
                f"{row['scalings']:,}" if row["scalings"] else "",
                f"{1e3 * row['seconds']:.3g}",
                _times(row["seconds"] / _ours(rows, row)["seconds"]),
                f"{row['bytes'] / 1e6:.3g}",
                _times(row["bytes"] / _ours(rows, row)["bytes"]),
                f"{row['compilation']:.1f}",
                row["plan_relative"],
                row["gradient_relative"],
            ]
            for row in rows
        ],
        COST_HEADERS,
    )


def verdict(differences: list[float]) -> str:
    """Say in words what paired differences over a few seeds allow to say."""
    wins, count = sum(x > 0 for x in differences), len(differences)
    text = f"{statistics.mean(differences):+.3f} on average, ahead in {wins} of {count}"
    if wins == count:
        return f"better ({text})"
    return f"worse ({text})" if wins == 0 else f"no clear difference ({text})"


def answer(results: dict[str, Any]) -> str:
    """Say in a paragraph each what the tables show."""
    runs, rows, costs = (results[key] for key in ("runs", "agreement", "costs"))
    others = [name for name in by_pooling(runs) if name != "transport"]
    text = [
        f"against {name} {verdict(against(runs, 'transport', name))}" for name in others
    ]
    unsolved = sum(run["unsolved"] for run in runs)
    solves = sum(run["solves"] for run in runs if run["pooling"] == "transport")
    worst = lambda name, dtype, key: max(
        row[key] for row in rows if (row["layer"], row["dtype"]) == (name, dtype)
    )
    slope = "gradient_relative"
    factors = []
    for name in dict.fromkeys(row["layer"] for row in costs if row["layer"] != "ours"):
        mine = [row for row in costs if row["layer"] == name]
        time, memory = (
            [row[key] / _ours(costs, row)[key] for row in mine]
            for key in ("seconds", "bytes")
        )
        factors.append(
            f"{name}, takes {_times(min(time))} to {_times(max(time))} times our time "
            f"and {_times(min(memory))} to {_times(max(memory))} times our memory"
        )
    compilation, theirs = (
        statistics.median(
            row["compilation"] for row in costs if (row["layer"] == "ours") == mine
        )
        for mine in (True, False)
    )
    return (
        f"*C-index of transport on held-out patients, seed by seed*: "
        f"{'; '.join(text)}. {unsolved} of {solves:,} solves did not converge.\n\n"
        f"*The layer*: our plan differs from that of the converged loop by at most "
        f"{worst('ours', 'float64', 'plan'):.0e} in float64 and "
        f"{worst('ours', 'float32', 'plan'):.0e} in float32 "
        f"({worst('ours', 'float64', 'plan_relative'):.0e} and "
        f"{worst('ours', 'float32', 'plan_relative'):.0e} of its largest entry), the "
        f"gradient by {worst('ours', 'float64', slope):.0e} and "
        f"{worst('ours', 'float32', slope):.0e} of its largest entry. The published "
        f"1,000 scalings in float64 are "
        f"{worst('published', 'float64', 'plan'):.0e} and "
        f"{worst('published', 'float64', slope):.0e} away.\n\n"
        f"*Its price*, plan and gradient in float32: {'; '.join(factors)}. "
        f"Against us: compilation takes {_times(compilation / theirs)} "
        "times as long (medians)."
    )


def write_readme(path: Path, results: dict[str, Any]) -> None:
    """Write the README; its numbers are those of this run."""
    seeds = sorted({run["seed"] for run in results["runs"]})
    deaths = statistics.mean(run["deaths_seen"] for run in results["runs"])
    path.write_text(f"""# Pooling of bags by partial transport (OTSurv)

**Question.** OTSurv (arXiv 2506.20741) pools the patches of a slide by a plan to 16
prototypes, moves a share of the mass that grows from 0.1 to 1 in training, and unrolls
the gradient through up to 1,000 matrix scalings. Does `solve_partial` give the same
plan and gradient, what do both cost, and does this pooling predict survival better
than a mean or attention on synthetic bags?

**Command.** `{COMMAND}`
(writes this file, `results.json` and `otsurv.png`)

**Answer.** {answer(results)}

## Survival

{pooling_table(results["runs"])}

Mean ± standard deviation over the seeds {seeds[0]} to {seeds[-1]}; each draws its own
cohort and its own first weights. {BEST}: the C-index of the log hazard that made the
times, which nobody can beat on average.

The bags are synthetic and were made for this experiment: {train.TRAINED} patients to
train and {train.HELD_OUT} held out, {data.SIZES[0]} to {data.SIZES[1]} patches of
{data.DIMENSION} numbers each, {100 * data.NOISE:.0f} % of them noise,
{len(data.FREQUENCY)} morphologies with a long tail; {100 * deaths:.0f} % of deaths are
seen. The log hazard is the amount of the two rarest morphologies plus the appearance
of the second most frequent one. All variants have the same encoder, the same
{train.EPOCHS} epochs of AdamW on Cox's loss in batches of {train.BATCH}, and nothing
was tuned for any of them. **They do not have the same head**: one that reads 16 tokens
has more weights than one that reads one. "attention, 16 heads" has the head of
transport, so that this alone is not what is measured. Published figures are on real
slides; these here say nothing about them.

## The layer

Differences from the published loop in float64 with 20,000 scalings, one bag of 100
patches, epsilon {layer.EPSILON}, penalty {layer.GAMMA:g}, gradient of a random linear
function of the plan in the cost. The published loop makes 1,000.

{agreement_table(results["agreement"])}

## Its price

Float32, share 0.5; median of at least five runs without compilation; memory as the
compiler reports it, without arguments and results. The published loop is unrolled by
`scan`. It stops early when its scalings stand still, so there is a row with as many
scalings as its rule takes (the most of the bags of a batch), and that is the fair one
for time; both differences are from the row with 1,000.

{cost_table(results["costs"])}

![C-index, memory and time](otsurv.png)

Made on {record.describe_environment(results["environment"])}.
Mean load of the machine at the end, this program included: {results["load"]:.1f}
(above the number of cores, times are those of a busy machine).
""")


def draw(path: Path, results: dict[str, Any]) -> None:
    """Draw the C-index of every seed, and memory and time over the size of a bag."""
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    groups = by_pooling(results["runs"])
    scores = {k: [run["c_index"] for run in mine] for k, mine in groups.items()}
    scores[BEST] = [run["c_index_best"] for run in groups["mean"]]
    for place, (name, values) in enumerate(scores.items()):
        colour = "0.5" if name == BEST else f"C{place}"
        left.plot([place] * len(values), values, "o", color=colour, alpha=0.5)
        left.plot(place, statistics.mean(values), "_", color=colour, markersize=34)
    left.set_xticks(range(len(scores)), [x.replace(" ", "\n") for x in scores])
    left.set_xlim(-0.5, len(scores) - 0.5)
    left.set(title="survival: seeds and their mean", ylabel="C-index, held out")
    single = [row for row in results["costs"] if row["bags"] == 1]
    for name in dict.fromkeys(row["layer"] for row in single):
        mine = [row for row in single if row["layer"] == name]
        patches = [row["patches"] for row in mine]
        memory = [row["bytes"] / 1e6 for row in mine]
        seconds = [1e3 * row["seconds"] for row in mine]
        middle.loglog(patches, memory, "o-", label=name)
        right.loglog(patches, seconds, "o-", label=name)
    middle.set(title="memory of plan and gradient", ylabel="memory / MB")
    right.set(title="time of plan and gradient", ylabel="time / ms")
    for axis in (middle, right):
        axis.set_xlabel("size of a bag / patches")
    for axis in (left, middle, right):
        axis.grid(alpha=0.3)
    right.legend()
    figure.savefig(path, dpi=110)
