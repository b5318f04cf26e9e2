"""One contender on all cases: `python worker.py NAME SECONDS`, a line of JSON a case.

It runs with the interpreter of the library's own environment. A case that is expected
to take longer than SECONDS, by the one before it with the same rank, is left out.
"""

import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402
from data import CASES, clouds, judged  # noqa: E402

jax.config.update("jax_enable_x64", True)
REPEATS = 5


def ours(rank):
    """`solve_low_rank`, compiled."""
    import jaxsns

    def run(x, y):
        found = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), rank=rank)
        return found.q, found.r, found.g

    return jax.jit(run)


def ott(rank):
    """`LRSinkhorn` without entropy, at its defaults."""
    from ott.geometry import pointcloud
    from ott.problems.linear import linear_problem
    from ott.solvers.linear import sinkhorn_lr

    solver = sinkhorn_lr.LRSinkhorn(rank=rank, epsilon=0.0)

    def run(x, y):
        out = solver(linear_problem.LinearProblem(pointcloud.PointCloud(x, y)))
        return out.q, out.r, out.g

    return jax.jit(run)


def pot(rank):
    """`lowrank_sinkhorn` without entropy, at its defaults."""
    import ot

    def run(x, y):
        x, y = np.asarray(x), np.asarray(y)
        return ot.lowrank.lowrank_sinkhorn(x, y, rank=rank, reg=0, warn=False)

    return run


CONTENDERS = {"jaxsns": ours, "OTT-JAX": ott, "POT": pot}


def main(name: str, limit: float) -> None:
    """Print cost, error of the marginals and seconds of each case."""
    for case, (kind, n, d, rank) in CASES.items():
        x, y = clouds(kind, n, d)
        run = CONTENDERS[name](rank)
        start = time.perf_counter()
        factors = jax.block_until_ready(run(x, y))
        first, seconds = time.perf_counter() - start, []
        for _ in range(REPEATS if first < limit else 1):
            start = time.perf_counter()
            factors = jax.block_until_ready(run(x, y))
            seconds.append(time.perf_counter() - start)
        cost, error = judged(*map(np.asarray, factors), x, y)
        row = {"contender": name, "case": case, "cost": cost, "error": error}
        row |= {"first": first, "seconds": statistics.median(seconds)}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
