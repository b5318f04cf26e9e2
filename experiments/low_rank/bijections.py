"""One-to-one transport of many points beside SciPy's assignment.

    python -m experiments.low_rank.bijections [--output FOLDER]

The cost is judged in float64 from the permutation alone. SciPy runs up to 5,000 points.
"""

import argparse
import json
import pathlib
import resource
import time

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from scipy.optimize import linear_sum_assignment  # noqa: E402

import jaxsns  # noqa: E402

# Points, dimension, largest block.
CASES = [
    *[(5_000, 2, block) for block in (64, 128, 256)],
    *[(5_000, 10, block) for block in (64, 128, 256)],
    (100_000, 2, 128),
    (100_000, 10, 128),
    (100_000, 10, 256),
]
LARGEST_EXACT = 5_000  # points: SciPy needs the matrix
REPEATS = 5  # calls, up to LARGEST_EXACT points; one above


def clouds(n: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """A normal cloud, and one with two parts."""
    random = np.random.default_rng(0)
    x = random.normal(size=(n, dimension))
    y = 0.7 * random.normal(size=(n, dimension))
    return x, y + random.choice([-1.0, 1.0], size=(n, 1))


def judged(x: np.ndarray, y: np.ndarray, permutation: np.ndarray) -> float:
    """Mean squared distance of the pairs; an error if it is no permutation."""
    if not np.array_equal(np.sort(permutation), np.arange(len(x))):
        raise ValueError("not a permutation")
    return float(np.mean(np.sum((x - y[permutation]) ** 2, axis=1)))


def timed(run):
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    out = jax.block_until_ready(run())
    return out, time.perf_counter() - start


def exact(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Cost and seconds of SciPy, the matrix included."""

    def run():
        cost = ((x[:, None] - y[None]) ** 2).sum(axis=-1)
        return linear_sum_assignment(cost)[1]

    permutation, seconds = timed(run)
    return judged(x, y, permutation), seconds


def main() -> None:
    """Run all cases, and print and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    rows, optima = [], {}
    for n, dimension, block in CASES:
        x, y = clouds(n, dimension)
        if n <= LARGEST_EXACT and (n, dimension) not in optima:
            optima[n, dimension] = exact(x, y)
        run = lambda x=x, y=y, block=block: jaxsns.solve_bijection(x, y, block=block)
        found, first = timed(run)
        number = REPEATS if n <= LARGEST_EXACT else 1
        seconds = float(np.median([timed(run)[1] for _ in range(number)]))
        cost = judged(x, y, np.asarray(found.permutation))
        best, theirs = optima.get((n, dimension), (None, None))
        row = {
            "n": n, "dimension": dimension, "block": block, "cost": cost,
            "above": None if best is None else cost / best - 1,
            "sweeps": int(found.steps), "converged": bool(found.converged),
            "seconds": seconds, "first": first, "scipy_seconds": theirs,
            "peak_GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row), flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "bijections.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
