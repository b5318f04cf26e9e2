"""Run as `python -m experiments.benchmarks`; README.md beside this file says more."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers need some

import importlib  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402

from experiments import record  # noqa: E402
from experiments.benchmarks import (  # noqa: E402
    arena,
    cases,
    options,
    plots,
    race,
    report,
    store,
    unregularised,
)


def run(chosen: Any, results: dict[str, Any], folder: Any) -> None:
    """Race all cases; the files are written after each setting."""
    start = time.perf_counter()
    pythons = {
        "ott": arena.python_of("ott", chosen.ott_python),
        "cpu": arena.python_of("cpu", chosen.cpu_python),
    }
    if chosen.ours_only:
        pythons = {}
    place = arena.Arena(pythons)
    results["peers"] = place.about

    def keep(lines: list[dict[str, Any]]) -> None:
        results["records"] += lines
        store.save(folder, results)
        print("  " + report.line(lines), flush=True)

    try:
        suite = cases.suite(chosen.seeds, chosen.quick)
        suite = [x for x in suite if options.wanted(chosen, x.name)]
        for number, case in enumerate(suite, start=1):
            seconds = time.perf_counter() - start
            if seconds > 60 * chosen.time_budget:
                results["left_out"] = [x.name for x in suite[number - 1 :]]
                break
            print(
                f"[{number} of {len(suite)}, {seconds:.0f} s] {case.name}", flush=True
            )
            race.of_case(place, case, chosen, keep)
            results["seconds"] = time.perf_counter() - start
        if not chosen.only:
            results["unregularised"] = unregularised.run(place, chosen)
    finally:
        place.close()
    results["seconds"] = time.perf_counter() - start
    store.save(folder, results)


def with_earlier(results: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Results with those of an earlier run for the cases that were not run again."""
    names = {x["problem"] for x in results["records"]}
    kept = [x for x in earlier["records"] if x["problem"] not in names]
    about = {k: earlier[k] for k in ("environment", "seconds") if k in earlier}
    older = [
        {**run, "problems": [x for x in run["problems"] if x not in names]}
        for run in earlier.get("earlier", [])
    ]
    known = {x for run in older for x in run["problems"]}
    about["problems"] = list(
        dict.fromkeys(x["problem"] for x in kept if x["problem"] not in known)
    )
    left = [x for x in earlier.get("left_out", []) if x not in names]
    left += results.get("left_out", [])
    merged = earlier | results | {"records": kept + results["records"]}
    merged["left_out"] = list(dict.fromkeys(left))
    merged["earlier"] = [run for run in (*older, about) if run["problems"]]
    return merged


def main() -> None:
    """Measure, and write benchmarks.md and the folder benchmarks beside it."""
    jax.config.update("jax_enable_x64", True)
    cache = arena.PEERS_FOLDER / "cache"  # compilation is not what is measured
    jax.config.update("jax_compilation_cache_dir", str(cache.absolute()))
    chosen = options.parse()
    gpu = "" if jax.default_backend() == "cpu" else f"-{jax.default_backend()}"
    folder = chosen.output / f"benchmarks{gpu}"
    earlier = store.load(folder) if chosen.add else None
    if chosen.report_only:
        results = store.load(folder)
    else:
        results = {
            "environment": record.environment(),
            "options": {
                key: value
                for key, value in vars(chosen).items()
                if isinstance(value, int | float | list | str)
            },
            "records": [],
        }
        if not chosen.no_single:
            run(chosen, results, folder)
        if chosen.batches:
            batches = importlib.import_module("experiments.benchmarks.batches")
            given = [
                "--seeds",
                *map(str, chosen.seeds),
                "--rounds",
                str(chosen.repeats),
            ]
            given += ["--only", *chosen.only] if chosen.only else []
            for flag, name in (("--ott-python", "ott"), ("--pot-python", "cpu")):
                python = arena.python_of(name, getattr(chosen, f"{name}_python"))
                given += [flag, str(python)] if python else []
            results["batches"] = batches.run(batches.parse(given))
            store.save(folder, results)
        if earlier is not None:
            results = with_earlier(results, earlier)
            store.save(folder, results)
    plots.draw(folder, results)
    text = report.text(results, folder)
    page = folder.with_suffix(".md")
    page.write_text(text)
    print("\n" + report.figures_section(results["records"]))
    print(f"\nwrote {page}, {folder}")


if __name__ == "__main__":
    main()
