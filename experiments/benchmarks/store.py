"""Where records are kept: results.json says how they were made, records.csv has them.

Numbers have five digits: more of a time says nothing, and the file is a tenth as long.
"""

import csv
import json
from pathlib import Path
from typing import Any

from experiments import record

Record = dict[str, Any]

TEXTS = ("problem", "family", "epsilon", "dtype", "contender", "library", "status")
COUNTS = ("n", "steps", "runs")
NUMBERS = ("tolerance", "error", "seconds", "own_seconds", "compile_seconds")
NUMBERS += ("threshold", "epsilon_value", "limit", "pass_seconds")
FIELDS = (*TEXTS, *COUNTS, *NUMBERS, "note")


def _written(name: str, value: Any) -> str:
    return f"{value:.5g}" if name in NUMBERS else str(value)


def _read(name: str, text: str) -> Any:
    return float(text) if name in NUMBERS else int(text) if name in COUNTS else text


def save(folder: Path, results: dict[str, Any]) -> None:
    """Write both files; an entry that a record lacks is empty."""
    about = {key: value for key, value in results.items() if key != "records"}
    record.save_json(folder / "results.json", about)
    with (folder / "records.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for x in results["records"]:
            row = [_written(k, x[k]) if k in x else "" for k in FIELDS]
            writer.writerow(row)


def load(folder: Path) -> dict[str, Any]:
    """Read what `save` wrote."""
    results = json.loads((folder / "results.json").read_text())
    with (folder / "records.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    results["records"] = [
        {k: _read(k, text) for k, text in row.items() if text != ""} for row in rows
    ]
    return results
