"""One picture: time against the error reached, the best variant of each library."""

import collections
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks import race
from experiments.benchmarks.cases import PAPER

Record = dict[str, Any]

STYLES = {  # colour and marker of each library
    "jaxsns": ("C3", "o"),
    "OTT-JAX": ("C0", "s"),
    "RegOT": ("C2", "^"),
    "POT": ("C1", "D"),
}
PANELS = ("assignment", "MNIST W2", "MNIST W1", "points d=2")


def best_variants(lines: list[Record], library: str) -> list[Record]:
    """The fastest record of a library at each tolerance, the loosest first."""
    best: dict[float, Record] = {}
    for x in lines:
        if x["library"] == library and (
            library != "jaxsns" or x["contender"] == "auto"
        ):
            known = best.get(x["tolerance"])
            if known is None or x["seconds"] < known["seconds"]:
                best[x["tolerance"]] = x
    return [best[tolerance] for tolerance in sorted(best, reverse=True)]


def _panel(
    axis: Axes, title: str, lines: list[Record], compiling: dict[str, float]
) -> None:
    for library, (colour, marker) in STYLES.items():
        mine = best_variants(lines, library)
        if not mine:
            continue
        tolerances = [x["tolerance"] for x in mine]
        axis.loglog(
            tolerances,
            [x["seconds"] for x in mine],
            color=colour,
            marker=marker,
            linewidth=2.2 if library == "jaxsns" else 1.4,
            label=library,
        )
        if all(x["contender"] in compiling for x in mine):
            axis.loglog(
                tolerances,
                [x["seconds"] + compiling[x["contender"]] for x in mine],
                color=colour,
                linestyle="--",
                linewidth=1.2,
                label=f"{library}, first call",
            )
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.invert_xaxis()
    axis.set_xlabel("tolerance: relative L1 error of both marginals")


def panels(records: list[Record]) -> list[tuple[str, list[Record]]]:
    """Problem and records of each panel; only what met its tolerance."""
    lines = [
        x
        for x in records
        if x["status"] == race.OK
        and x["epsilon"] == PAPER
        and x["dtype"] == "float64"
        and x["tolerance"] > 1e-13
    ]
    out = []
    for family in PANELS:
        mine = [x for x in lines if x["family"] == family]
        if mine:
            counts = collections.Counter(x["problem"] for x in mine)
            name = max(sorted(counts), key=lambda name: counts[name])
            out.append((name, [x for x in mine if x["problem"] == name]))
    return out


def draw(folder: Path, results: dict[str, Any]) -> None:
    """Write time_error.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = panels(results["records"])
    if not drawn:
        return
    compiling = results.get("first_calls", {}).get("compile_seconds", {})
    columns = min(len(drawn), 2)
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(4.5 * columns, 3.2 * rows + 0.4), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, mine) in zip(axes, drawn, strict=False):
        _panel(axis, title, mine, compiling.get(title, {}))
    for axis in axes[len(drawn) :]:
        axis.remove()
    for axis in axes[::columns]:
        axis.set_ylabel("time of a solve (s)")
    handles = {}
    for axis in axes[: len(drawn)]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), ncols=3, loc="outside upper center")
    figure.savefig(folder / "time_error.svg", metadata={"Date": None})
