"""Time of each solver on each problem."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def draw(rows: list[dict], path: Path) -> None:
    """Bars of seconds by problem and solver, logarithmic."""
    rows = [row for row in rows if "seconds" in row]
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    solvers = list(dict.fromkeys(row["solver"] for row in rows))
    figure = Figure(figsize=(8, 0.7 * len(problems) + 1.5), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(solvers)
    for number, solver in enumerate(solvers):
        seconds = {r["problem"]: r["seconds"] for r in rows if r["solver"] == solver}
        places = [k for k, problem in enumerate(problems) if problem in seconds]
        values = [seconds[problems[k]] for k in places]
        offset = (number - (len(solvers) - 1) / 2) * height
        axes.barh(np.asarray(places) + offset, values, height, label=solver)
    axes.set_yticks(range(len(problems)), problems)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("time (s) until the solver's own stopping test")
    axes.legend()
    figure.savefig(path, dpi=120)
