"""Compare quadratically regularised transport with POT and RegOT, in one run.

    python -m experiments.sparse [--peers PYTHON] [--output FOLDER]

PYTHON is an interpreter that has pot and regot; without it only ours runs.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from experiments.sparse.data import BAR
from experiments.sparse.worker import CONTENDERS


def main() -> None:
    """Run the contenders one after another, and print and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    rows = []
    for name in CONTENDERS:
        python = sys.executable if name == "jaxsns" else arguments.peers
        if python is None:
            continue
        command = [python, "-m", "experiments.sparse.worker", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
    for row in sorted(rows, key=lambda row: (row["case"], -row["gamma"])):
        verdict = "" if row["error"] <= BAR else "  misses"
        print(
            f"{row['case']:24s} gamma {row['gamma']:5g} {row['contender']:22s} "
            f"{row['seconds']:8.3f} s  error {row['error']:.0e}  "
            f"first call {row['first']:6.2f} s{verdict}"
        )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        lines = ",\n".join(json.dumps(row) for row in rows)
        (arguments.output / "results.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
