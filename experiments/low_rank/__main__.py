"""Compare low-rank transport with OTT-JAX and POT, in one run.

    python -m experiments.low_rank [--peers PYTHON] [--output FOLDER]

PYTHON is an interpreter that has ott-jax and pot; without it only ours runs.
"""

import argparse
import json
import pathlib
import subprocess
import sys

WORKER = pathlib.Path(__file__).parent / "worker.py"
LIMIT = 20.0  # seconds of a first call above which the second one counts alone


def main() -> None:
    """Run the contenders one after another, and print and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers")
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    contenders = {"jaxsns": sys.executable}
    if arguments.peers:
        contenders |= {"OTT-JAX": arguments.peers, "POT": arguments.peers}
    rows = []
    for name, python in contenders.items():
        command = [python, str(WORKER), name, str(LIMIT)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows += [json.loads(line) for line in done.stdout.splitlines()]
    for row in sorted(rows, key=lambda row: row["case"]):
        print(
            f"{row['case']:36s} {row['contender']:8s} cost {row['cost']:9.4f}  "
            f"marginal error {row['error']:.0e}  {row['seconds']:7.3f} s  "
            f"first call {row['first']:6.1f} s"
        )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "results.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
