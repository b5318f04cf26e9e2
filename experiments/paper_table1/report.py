"""The README and the figure, written from the results of the run alone."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments import record
from experiments.paper_table1.cases import TOLERANCE

COMMAND = "python -m experiments.paper_table1"
HEADERS = (
    "problem",
    "method",
    "status",
    "true error",
    "iterations",
    "sweeps",
    "Newton steps",
    "CG steps",
    "time / s",
    "time / passes",
    "paper: iterations",
    "paper: time / s",
)
TRIED_HEADERS = (
    "problem",
    "warm-up sweeps",
    "kept a row and column",
    "status",
    "true error",
    "Newton steps",
    "CG steps",
    "time / s",
)


def main_table(runs: list[dict[str, Any]]) -> str:
    """All methods on all problems beside the paper's figures."""
    rows = [
        [
            run["problem"],
            run["method"],
            run["status"],
            run["error"],
            run["sweeps"] + run["newton_steps"],
            run["sweeps"],
            run["newton_steps"],
            run["linear_steps"],
            run["seconds"],
            run["seconds"] / run["pass_seconds"],
            *(f"{x:,}" for x in run["paper"] or ()),
        ]
        for run in runs
    ]
    rows = [row + [""] * (len(HEADERS) - len(row)) for row in rows]
    return record.table(rows, HEADERS)


def tried_table(tried: list[dict[str, Any]]) -> str:
    """All settings of published SNS."""
    keys = ("problem", "warm_up", "kept", "status", "error")
    keys += ("newton_steps", "linear_steps", "seconds")
    return record.table([[run[key] for key in keys] for run in tried], TRIED_HEADERS)


def setting(run: dict[str, Any]) -> str:
    """Name a setting of published SNS, and how long it took."""
    steps = f", {run['newton_steps']} Newton steps" if run["met"] else ""
    return f"{run['warm_up']}/{run['kept']}{steps}"


def answer(runs: list[dict[str, Any]], tried: list[dict[str, Any]]) -> str:
    """Say in a paragraph what the tables show."""
    text = []
    for name in dict.fromkeys(run["problem"] for run in runs):
        mine = {run["method"]: run for run in runs if run["problem"] == name}
        auto, over = mine["auto"], mine["Sinkhorn, over-relaxed"]
        plain = mine["Sinkhorn, plain"]
        settings = [run for run in tried if run["problem"] == name]
        good = [setting(run) for run in settings if run["met"]]
        bad = [setting(run) for run in settings if not run["met"]]
        text.append(f"**{name}**: published SNS")
        if good:
            text.append(f"reaches {TOLERANCE:g} with {'; '.join(good)}")
        if bad:
            text.append(f"{'and ' if good else ''}misses it with {'; '.join(bad)}")
        sns = mine["SNS, as published"]
        text[-1] += f". The table shows {sns['warm_up']}/{sns['kept']}."
        text.append(
            f"`auto`, with nothing to set, takes {auto['newton_steps']} Newton steps "
            f"and {auto['sweeps']} sweeps, {auto['seconds']:.2g} s; over-relaxed "
            f"Sinkhorn {over['sweeps']:,} sweeps, {over['seconds']:.2g} s"
            f"{'' if over['met'] else ' without reaching it'}; plain Sinkhorn "
            f"{plain['sweeps']:,} sweeps, {plain['seconds']:.2g} s"
            f"{'' if plain['met'] else ' without reaching it'}.\n\n"
        )
    return " ".join(text).replace("\n\n ", "\n\n").strip()


def write_readme(path: Path, results: dict[str, Any]) -> None:
    """Write the README; its numbers are those of this run."""
    path.write_text(f"""# Table 1 of the SNS paper

**Question.** Does published Sinkhorn-Newton-Sparse do what Table 1 of its paper
(Tang et al., ICLR 2024) reports, and how do the other methods of this library fare
on the same problems? Costs are scaled to largest cost 1, epsilon = 1/1200, float64,
L1 error of both marginals at most {TOLERANCE:g}.

**Command.** `{COMMAND}`
(writes this file, `results.json` and `error_by_iteration.png`)

**Answer.** Settings of SNS are warm-up sweeps / entries kept; the paper's are in the
second section.

{answer(results["runs"], results["tried"])}

{main_table(results["runs"])}

Iterations are sweeps and Newton steps together. The true error is computed by the
experiment from the potentials, not by the solver; MISS marks a run that did not
reach the tolerance. Times are medians without compilation; "time / passes" divides
by the measured time of one exponential of the matrix with its row and column sums.
**The paper's figures are from another machine (Apple M1 Pro), another
implementation and other images and random costs: compare iterations, not seconds.**
Published SNS sweeps in the log domain (two exponentials a sweep); our Sinkhorn
sweeps on a stored kernel, which alone makes a sweep many times cheaper. Plain
Sinkhorn is therefore not the paper's either, as far as seconds go.

## Settings of published SNS that were tried

The paper gives 20 warm-up sweeps and a sparsity of 2/n for the first two problems,
700 and 15/n for the third. Here sparsity is a number of entries kept in each row
and each column of the plan. At most 100 Newton steps. The first table shows the
first setting of each problem that reaches the tolerance.

{tried_table(results["tried"])}

![error by iteration](error_by_iteration.png)

`auto` solves problems with a larger epsilon first, so that its error at the wanted
epsilon stays near 1 until the last of them.

Made on {record.describe_environment(results["environment"])}.
""")


def draw(path: Path, histories: dict[str, dict[str, list]]) -> None:
    """Draw the true error against iterations, a panel for each problem."""
    figure = Figure(figsize=(13, 4.3), layout="constrained")
    axes = figure.subplots(1, len(histories), sharey=True)
    for axis, (name, methods) in zip(axes, histories.items(), strict=True):
        for label, history in methods.items():
            steps, errors = zip(*history, strict=True)
            axis.loglog(steps, errors, marker=".", markersize=4, label=label)
        axis.axhline(TOLERANCE, color="0.5", linestyle=":", linewidth=1)
        axis.set_title(name)
        axis.set_xlabel("iterations: sweeps and Newton steps / count")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("L1 error of both marginals / total mass")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    figure.savefig(path, dpi=110)
