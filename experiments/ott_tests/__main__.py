"""Run as `python -m experiments.ott_tests CHECKOUT`: OTT's tests on our solver.

CHECKOUT: a clone of OTT-JAX, with the folder `tests` (which its packages lack). Every
test is run twice in the same environment, on `jaxsns.ott.Solver` and on OTT's own
solver, so that what fails for both can be told from what we fail.
"""

import argparse
import collections
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from experiments import record
from experiments.ott_tests import chosen

ROOT = pathlib.Path(__file__).parents[2]


def run(checkout: pathlib.Path, solver: str) -> dict[str, list[str]]:
    """Outcome of each test: "passed", "failed", "skipped" or "left out", and why."""
    files = [f"tests/{name}" for name in chosen.FILES]
    files = [name for name in files if (checkout / name).exists()]
    with tempfile.TemporaryDirectory() as folder:
        results = pathlib.Path(folder) / "results.json"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "experiments.ott_tests.plugin",
             "-p", "no:cacheprovider", "--tb=short", "-o", "filterwarnings=", *files],
            cwd=checkout,
            env=os.environ | {
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(checkout)]),
                "OTT_TESTS_SOLVER": solver,
                "OTT_TESTS_RESULTS": str(results),
            },
        )  # fmt: skip
        return json.loads(results.read_text())


def main() -> None:
    """Run both, write `results.json`, print what differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--note", default="", help="of which text of the tests")
    arguments = parser.parse_args()
    outcomes = {name: run(arguments.checkout, name) for name in ("jaxsns", "ott")}
    names = sorted(set(outcomes["jaxsns"]) | set(outcomes["ott"]))
    table = {
        name: {who: outcomes[who].get(name, ["absent", ""]) for who in outcomes}
        for name in names
    }
    for who, results in outcomes.items():
        count = collections.Counter(outcome for outcome, _ in results.values())
        print(who, dict(count))
    for name, row in table.items():
        if {row[who][0] for who in row} - {"passed", "left out", "skipped"}:
            print(name, row)
    packages = ("jax", "jaxlib", "ott-jax", "lineax", "equinox")
    facts = {name: importlib.metadata.version(name) for name in packages}
    facts |= {"python": sys.version.split()[0], "tests": arguments.note}
    path = pathlib.Path(__file__).parent / "results.json"
    record.save_json(path, {"environment": facts, "tests": table})


if __name__ == "__main__":
    main()
