"""100,000 random problems through the judge. Writes `results.json` and `README.md`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # LAPACK against XLA's threads

import argparse
import collections
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import record
from experiments.drills import checks, problems, relations, solving
from experiments.drills.problems import Setting
from jaxsns import Status

FOLDER = Path(__file__).parent
LANES = 250  # of a batch
TOLD = 10  # every so many batches of stored costs are told otherwise as well
DTYPES = ("float32", "float64")
SHOWN = ("CONVERGED", "STALLED", "MAX_STEPS", "INFEASIBLE")
HEADERS = (
    "problems", *SHOWN, "other", "max off", "min off", "early", "violations",
)  # fmt: skip

TEXT = """# Failure drills

Random problems of all scales through a judge that owes nothing to the library: NumPy
in a wider dtype (`checks.py`). What is drawn is in `problems.py`: costs and masses of
scale 1e-12 to 1e12, epsilon 1e-4 to 10 of the costs' spread, ties and near-ties, atoms
without mass, duplicates, forbidden pairs (with and without a plan left), large shifts.

- max off, min off: (true error - reported error) / rounding, the largest and the least
  of the problems that have an answer; rounding is derived in `checks.py`, and above 1
  is a violation.
- early: STALLED or MAX_STEPS at an error that rounding does not explain.
- violations: NaN or an infinity where there is mass, a status that is wrong, a true
  error above the reported one by more than rounding, CONVERGED above the tolerance,
  a value that is not the dual's or not between the dual's and that of a feasible plan.

Batch s of a setting is `problems.draw(Setting(...), s, lanes)`; each violation is
printed with its setting, seed and lane. Command: `python -m experiments.drills`.
"""

SHARES: list[tuple[float, Setting]] = [
    *[
        (5, Setting(shape, dtype))
        for shape in ((1, 1), (2, 7), (5, 3), (12, 12), (33, 40), (70, 66))
        for dtype in DTYPES
    ],
    *[
        (2.5, Setting(shape, dtype, penalised=True))
        for shape in ((2, 7), (12, 12), (33, 40))
        for dtype in DTYPES
    ],
    *[(2.5, Setting((12, 12), dtype, "sinkhorn")) for dtype in DTYPES],
    *[(2.5, Setting((33, 40), dtype, "newton")) for dtype in DTYPES],
    *[(2.5, Setting((12, 12), dtype, "symmetric")) for dtype in DTYPES],
    *[(2.5, Setting((33, 40), dtype, geometry="shared")) for dtype in DTYPES],
    *[(1.25, Setting((33, 40), dtype, geometry="streamed")) for dtype in DTYPES],
    *[(1.25, Setting((12, 20), dtype, geometry="grid")) for dtype in DTYPES],
]  # in per cent


class Tally:
    """Counts and extremes of any number of batches."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.statuses: collections.Counter = collections.Counter()
        self.most, self.least = -np.inf, np.inf
        self.early = self.violations = 0

    def add(self, answers, verdict, lanes) -> None:
        """Add lanes of a batch, given by their indices."""
        for k in lanes:
            name = Status(int(answers.status[k])).name
            self.statuses[name] += 1
            self.early += int(verdict.early[k])
            self.violations += bool(verdict.violations[k])
            off = verdict.off[k]
            if name in SHOWN[:3] and np.isfinite(off):
                self.most, self.least = max(self.most, off), min(self.least, off)

    def cells(self) -> list:
        """Cells of a table with `HEADERS`."""
        shown = [self.statuses[name] for name in SHOWN]
        total = self.statuses.total()
        extremes = [f"{x:.2f}" for x in (self.most, self.least)]
        other = total - sum(shown)
        return [total, *shown, other, *extremes, self.early, self.violations]


def lane_words(setting: Setting, seed: int, k: int, kind: str, words: list[str]) -> str:
    """One line from which a problem can be drawn again."""
    return f"{setting}, seed {seed}, lane {k} of {LANES}, {kind}: {'; '.join(words)}"


def drill(setting: Setting, seeds: range, tallies, kinds, said: list[str]) -> None:
    """Solve and judge batches of a setting."""
    for seed in seeds:
        lanes = problems.draw(setting, seed, LANES)
        answers = solving.solve(setting, lanes)
        verdict = checks.judge(setting, lanes, answers)
        tallies[setting].add(answers, verdict, range(LANES))
        for k, words in enumerate(verdict.violations):
            if setting.geometry == "dense" and not setting.penalised:
                kinds[lanes.kinds[k], setting.dtype].add(answers, verdict, [k])
            if words:
                said.append(lane_words(setting, seed, k, lanes.kinds[k], words))
                print("VIOLATION", said[-1], flush=True)


def tell_otherwise(setting: Setting, seed: int, count: int, related, said) -> None:
    """Compare answers to a batch told in all ways there are."""
    lanes = problems.draw(setting, seed, count)
    for name in relations.NAMES:
        told = relations.tell(name, setting, lanes, seed)
        first = solving.solve(setting, told.first)
        second = solving.solve(told.setting, told.second)
        violations, judged = relations.compare(setting, told, first, second)
        row = related[name, setting.dtype]
        row["pairs"] += count
        row["compared"] += int(judged.sum())
        row["other status"] += int((first.status != second.status).sum())
        row["violations"] += sum(map(bool, violations))
        for k, words in enumerate(violations):
            if words:
                words = [f"told {name} ({count} lanes)", *words]
                said.append(lane_words(setting, seed, k, lanes.kinds[k], words))
                print("VIOLATION", said[-1], flush=True)


def run(number: int, seed: int) -> dict[str, Any]:
    """Drill about `number` problems, in the shares above; at least a batch each."""
    tallies, kinds = (collections.defaultdict(Tally) for _ in range(2))
    related: dict = collections.defaultdict(collections.Counter)
    said: list[str] = []
    start = time.perf_counter()
    for share, setting in SHARES:
        batches = max(round(share / 100 * number / LANES), 1)
        drill(setting, range(seed, seed + batches), tallies, kinds, said)
        plain = setting.geometry == "dense" and not setting.penalised
        if plain and setting.method == "auto":
            count = LANES if max(setting.shape) < 32 else 50
            for k in range(seed, seed + batches, TOLD):
                tell_otherwise(setting, k, count, related, said)
        cells = dict(zip(HEADERS, tallies[setting].cells(), strict=True))
        print(f"{time.perf_counter() - start:6.0f} s", setting, cells, flush=True)
    return {
        "environment": record.environment(),
        "seed": seed,
        "seconds": time.perf_counter() - start,
        "problems": sum(t.statuses.total() for t in tallies.values()),
        "settings": [[s.name, f"{s.shape[0]} x {s.shape[1]}", s.dtype, *t.cells()]
                     for s, t in tallies.items()],
        "kinds": [[*key, *t.cells()] for key, t in sorted(kinds.items())],
        "relations": [[*key, *row.values()] for key, row in sorted(related.items())],
        "violations": said,
    }  # fmt: skip


def as_text(results: dict[str, Any]) -> str:
    """Return the README of a run."""
    first = record.table(results["settings"], ("method", "shape", "dtype", *HEADERS))
    second = record.table(results["kinds"], ("costs", "dtype", *HEADERS))
    headers = ("told", "dtype", "pairs", "compared", "other status", "violations")
    third = record.table(results["relations"], headers)
    listed = "".join(f"- {line}\n" for line in results["violations"]) or "None.\n"
    return (
        f"{TEXT}\n{record.describe_environment(results['environment'])}. "
        f"{results['problems']:,} problems from seed {results['seed']}, "
        f"{results['seconds'] / 60:.0f} minutes.\n\n{first}\n\n"
        f"The balanced ones with stored costs, by what was drawn:\n\n{second}\n\n"
        "The same problem told otherwise (two solves a pair, beside those above). "
        "Compared: both converged, and the residuals fix the plan well enough for a "
        "bound of first order. Other status: the two ended differently, at an error "
        f"within rounding of the tolerance.\n\n{third}\n\n## Violations\n\n{listed}"
    )


def main() -> None:
    """Drill, print, and write both files; with `--quick` print only."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="2,000, nothing written")
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = run(2_000 if given.quick else given.problems, given.seed)
    text = as_text(results)
    print(text)
    if not given.quick:
        (FOLDER / "README.md").write_text(text)
        record.save_json(FOLDER / "results.json", results)


if __name__ == "__main__":
    main()
