"""Run as `python -m experiments.quickstart [--output DIR]`: under two minutes.

Shows that the installation works and what the library is for: it compares methods
on two handwritten digits, moves a cloud of points, trains a small model, and writes
a figure of each.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see experiments/record.py

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402

from experiments import record  # noqa: E402
from experiments.quickstart import cloud, digits, model  # noqa: E402


def main() -> None:
    """Run the three parts, then draw them."""
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/quickstart"))
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()

    def say(step: int, text: str) -> None:
        print(
            f"\n[{step} of 4, {time.perf_counter() - start:.0f} s] {text}", flush=True
        )

    print(record.describe_environment(record.environment()))
    parts = (
        (digits, "digits: several methods move one digit onto another"),
        (cloud, "cloud: gradient descent moves points onto a ring"),
        (model, "model: a small network learns a distribution"),
    )
    results = []
    for number, (part, text) in enumerate(parts, start=1):
        say(number, text)
        results.append(part.run())
    say(4, "figures")
    for (part, _), result in zip(parts, results, strict=True):
        path = folder / f"{part.__name__.rsplit('.', 1)[-1]}.png"
        part.draw(result, path)
        print(f"wrote {path}")
    print(f"\ndone in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
