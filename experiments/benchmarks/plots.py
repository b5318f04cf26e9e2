"""Two pictures: time against error reached, and time against n."""

import collections
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.benchmarks import race
from experiments.benchmarks.cases import HEADLINE, PAPER
from experiments.benchmarks.contenders import OURS, PEERS

Record = dict[str, Any]

COLOURS = {"jaxsns": "C3", "OTT-JAX": "C0", "RegOT": "C2", "POT": "C1"}
MARKERS = "osv^D<>PX*hp"
PANELS = ("assignment", "MNIST W2", "MNIST W1", "points d=2")


def _style(x: Record, number: int) -> dict[str, Any]:
    ours = x["library"] == "jaxsns"
    return {
        "color": COLOURS[x["library"]],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "linewidth": 2.2 if x["contender"] == "auto" else 1.0,
        "linestyle": "-" if ours else "--",
        "label": f"jaxsns {x['contender']}" if ours else x["contender"],
    }


def _curves(axis: Axes, lines: list[Record], key: str, names: list[str]) -> None:
    """Seconds against a key of the records, a curve for each contender."""
    for number, name in enumerate(names):
        mine = sorted(
            (x for x in lines if x["contender"] == name), key=lambda x: x[key]
        )
        if mine:
            axis.loglog(
                [x[key] for x in mine],
                [x["seconds"] for x in mine],
                **_style(mine[0], number),
            )
    axis.grid(alpha=0.3, which="both")


def _legend(figure: Figure, axes: list[Axes]) -> None:
    handles = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside right center",
        fontsize=8,
    )


def _draw(
    path: Path,
    panels: list[tuple[str, list]],
    key: str,
    label: str,
) -> None:
    if not panels:
        return
    names = [x.name for x in OURS + PEERS]  # the same marker in every picture
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns + 3, 3.6 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, mine) in zip(axes, panels, strict=False):
        _curves(axis, mine, key, names)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label)
        axis.set_ylabel("time of a solve / s")
        if key == "error":
            axis.invert_xaxis()
        else:
            sizes = sorted({x["n"] for x in mine})
            axis.set_xticks(sizes, [str(x) for x in sizes])
            axis.set_xticks([], minor=True)
    for axis in axes[len(panels) :]:
        axis.remove()
    _legend(figure, axes[: len(panels)])
    figure.savefig(path, dpi=110)


def draw(folder: Path, records: list[Record]) -> None:
    """Write time_error.png and time_n.png; only what met its tolerance is drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        x
        for x in records
        if x["status"] == race.OK
        and x["epsilon"] == PAPER
        and x["dtype"] == "float64"
        and x["tolerance"] > 1e-13
    ]
    panels = []
    for family in PANELS:
        mine = [x for x in lines if x["family"] == family]
        if mine:
            counts = collections.Counter(x["problem"] for x in mine)
            name = max(sorted(counts), key=lambda name: counts[name])
            some = [x for x in mine if x["problem"] == name]
            panels.append((f"{name}, epsilon {PAPER} of the largest cost", some))
    label = "L1 error of both marginals reached / mass"
    _draw(folder / "time_error.png", panels, "error", label)
    one = {}  # seed of a size
    for x in lines:
        if x["tolerance"] == HEADLINE:
            one.setdefault((x["family"], x["n"], x["contender"]), x)
    lines = list(one.values())
    panels = []
    for family in dict.fromkeys(x["family"] for x in lines):
        mine = [x for x in lines if x["family"] == family]
        if len({x["n"] for x in mine}) > 1:
            panels.append((f"{family}, {PAPER}, error {HEADLINE:g}", mine))
    _draw(folder / "time_n.png", panels, "n", "n = m, points or agents / count")
