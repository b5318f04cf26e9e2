"""The cost without regularisation: ot.emd and MDOT-TNT beside `auto` at small epsilon.

The quantity compared is the relative gap to the value of the network simplex. Values
of `auto` are <C, P> of its plan, not rounded: the marginal error, at most 1e-9 of the
mass, is far below the gaps.
"""

import statistics
from typing import Any

from experiments import problems, record
from experiments.benchmarks.arena import Arena
from experiments.benchmarks.peer_process import PeerError

EPSILONS = (1e-2, 1e-3, 1e-4)  # of the largest cost
GAMMAS = (2.0**10, 2.0**12, 2.0**14)  # of MDOT-TNT, one over epsilon
TOLERANCE = 1e-9
REPEATS = 3


def _cases(seed: int) -> dict[str, problems.Problem]:
    return {
        f"MNIST W1, seed {seed}": problems.mnist(*problems.mnist_pair(seed), 1),
        f"points d=2 n=1000, seed {seed}": problems.gaussian_points(
            1000, 1000, 2, seed
        ),
    }


def _peers(arena: Arena, limit: float) -> list[dict[str, Any]]:
    """Median times and values of ot.emd2 and MDOT-TNT."""
    installed = arena.about.get("cpu", {})
    runs = [("POT", "ot.emd2", "emd", {"max_iterations": 10_000_000})]
    runs += [
        ("mdot-tnt", f"MDOT-TNT, gamma {gamma:g}", "mdot", {"gamma": gamma})
        for gamma in GAMMAS
    ]
    out = []
    for library, name, function, options in runs:
        line: dict[str, Any] = {"solver": name, "value": None, "seconds": None}
        out.append(line)
        if library not in installed:
            line["note"] = "not installed"
            continue
        times = []
        try:
            for _ in range(REPEATS + 1):  # the first is the warm-up
                line["value"], seconds = arena.unregularised(function, options, limit)
                times.append(seconds)
        except PeerError as error:
            line["note"] = str(error)[:200]
            continue
        line["seconds"] = statistics.median(times[1:])
    return out


def run(arena: Arena, options: Any) -> list[dict[str, Any]]:
    """All solvers on both problems; relative gaps to ot.emd2."""
    out = []
    for name, problem in _cases(options.seeds[0]).items():
        arena.load(problem, "float64")
        lines = _peers(arena, options.limit)
        for epsilon in EPSILONS:
            runs = [arena.potentials(epsilon, TOLERANCE) for _ in range(REPEATS)]
            solution = runs[0][0]
            lines.append(
                {
                    "solver": f"jaxsns auto, epsilon {epsilon:g}",
                    "value": float(solution.transport_cost),
                    "seconds": statistics.median(seconds for _, seconds in runs),
                    "note": "" if bool(solution.converged) else "MISS",
                }
            )
        exact = lines[0]["value"]
        for line in lines:
            if exact is not None and line["value"] is not None:
                line["gap"] = (line["value"] - exact) / exact
        out += [{"problem": name, **line} for line in lines]
        print(f"unregularised: {name} done", flush=True)
    return out


def section(lines: list[dict[str, Any]]) -> str:
    """Part of the page, or nothing."""
    if not lines:
        return ""

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    rows = [
        [
            x["problem"],
            x["solver"],
            number(x["value"], ".8f"),
            number(x.get("gap"), ".1e"),
            number(x["seconds"] and 1e3 * x["seconds"], ",.1f"),
            x.get("note", ""),
        ]
        for x in lines
    ]
    headers = ["problem", "solver", "value", "relative gap", "time / ms", "note"]
    return (
        "## The cost without regularisation\n\nIf only the unregularised value is "
        "wanted to many digits,\na network simplex is the tool at these sizes.\n\n"
        '<details markdown="1"><summary>MNIST W1 by four solvers</summary>\n\n'
        + record.table(rows, headers)
        + "\n\n</details>"
    )
