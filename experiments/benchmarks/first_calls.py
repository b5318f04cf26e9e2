"""How long the first call of each library compiles, with empty caches.

Run as `python -m experiments.benchmarks.first_calls`; it adds what it finds to
`docs/benchmarks/results.json` and draws the picture and the page again. RegOT and POT
compile nothing. What ours needs of JAX was imported before, and OTT-JAX has traced much
the same program for its pilot: both figures are of tracing and compilation alone.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import statistics  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402

from experiments import record  # noqa: E402
from experiments.benchmarks import (  # noqa: E402
    arena,
    cases,
    contenders,
    plots,
    report,
    store,
)

REPEATS = 5
FOLDER = Path("docs/benchmarks")


def _once(case: cases.Case, names: list[str]) -> dict[str, float]:
    """Seconds of compilation of these contenders in fresh processes or caches."""
    jax.clear_caches()
    problem = case.make()
    epsilon = cases.value(cases.PAPER, problem)
    out = {}
    with tempfile.TemporaryDirectory() as cache:
        place = arena.Arena({"ott": arena.python_of("ott", None)}, Path(cache))
        try:
            place.load(problem, "float64")
            for x in (*contenders.OURS, *contenders.OTT):
                if x.name in names:
                    # A tolerance that is met at once: the same program, compiled.
                    run = place.solve(x, epsilon, 0.5, 1.0)
                    out[x.name] = run.compile_seconds
        finally:
            place.close()
    return out


def measure(results: dict[str, Any]) -> dict[str, Any]:
    """Median seconds by problem and library, for the variants that are drawn."""
    suite = {x.name: x for x in cases.suite([0, 1], False)}
    found = {}
    for name, lines in plots.panels(results["records"]):
        best = {
            library: {x["contender"] for x in plots.best_variants(lines, library)}
            for library in ("jaxsns", "OTT-JAX")
        }
        names = sorted(set().union(*best.values()))
        times = [_once(suite[name], names) for _ in range(REPEATS)]
        middle = {x: statistics.median(t[x] for t in times) for x in names}
        found[name] = {x: round(seconds, 3) for x, seconds in middle.items()}
        print(name, found[name], flush=True)
    return {"environment": record.environment(), "compile_seconds": found}


def main() -> None:
    """Measure, and write all files again."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    results = store.load(FOLDER)
    results["first_calls"] = measure(results)
    store.save(FOLDER, results)
    plots.draw(FOLDER, results)
    FOLDER.with_suffix(".md").write_text(report.text(results, FOLDER))


if __name__ == "__main__":
    main()
