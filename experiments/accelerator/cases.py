"""Problems of the parts, and the judge of potentials; for both libraries.

NumPy and JAX only: a peer's environment need not have this project installed.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

RUNS, BUDGET = 5, 6.0  # timed runs of a case at most, and seconds for all of them


class Sizes(NamedTuple):
    """How large the problems are."""

    dense: tuple[int, ...]  # n of n x n
    batch: tuple[int, int]  # problems, n
    tiny: tuple[int, int]
    streamed: tuple[int, ...]  # points of each cloud
    operations: tuple[int, ...]  # points for single soft minima


FULL = Sizes((500, 2000, 5000), (64, 128), (10**6, 4), (20_000, 50_000), (20_000,))
REHEARSAL = Sizes((20,), (3, 34), (40, 4), (96,), (96,))
TOLERANCE = 1e-3  # relative L1 error of the marginals, in float32
DENSE_EPSILON, BATCH_EPSILON, TINY_EPSILON, CLOUD_EPSILON = 0.01, 0.05, 0.1, 0.1


def costs(number: int, n: int) -> jax.Array:
    """[number, n, n] costs, uniform in [0, 1)."""
    draw = np.random.default_rng(n).random((number, n, n), np.float32)
    return jnp.asarray(draw)


def clouds(n: int) -> tuple[jax.Array, jax.Array]:
    """Two clouds [n, 3] of standard normal points, one of them shifted by 1."""
    x, y = np.random.default_rng(n).normal(size=(2, n, 3)).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(y + 1)


def matrix_error(cost: jax.Array, f: jax.Array, g: jax.Array, epsilon: float) -> float:
    """Relative L1 error of both marginals, uniform masses, on the host in float64."""
    cost, f, g = (np.asarray(x, np.float64) for x in (cost, f, g))
    plan = np.exp((f[:, None] + g[None, :] - cost) / epsilon)
    n, m = plan.shape
    return float(abs(plan.sum(1) - 1 / n).sum() + abs(plan.sum(0) - 1 / m).sum())


def cloud_error(x: Any, y: Any, f: Any, g: Any, epsilon: float) -> float:
    """The same for squared distances of points, a row at a time on the device."""
    columns = jnp.asarray(y), jnp.asarray(g)

    def row(total, given):
        point, potential = given
        cost = jnp.sum((point[None] - columns[0]) ** 2, axis=1)
        plan = jnp.exp((potential + columns[1] - cost) / epsilon)
        return total + plan, jnp.sum(plan)

    run = jax.jit(lambda x, f: jax.lax.scan(row, jnp.zeros_like(columns[1]), (x, f)))
    sums = run(jnp.asarray(x), jnp.asarray(f))
    off = [np.asarray(s, np.float64) for s in sums]
    return float(sum(abs(s - 1 / len(s)).sum() for s in off))


def timed(function: Callable, *arguments: Any) -> tuple[dict[str, Any], Any]:
    """Seconds of lowering with compiling and of a run, memory, and the result.

    Memory is what the compiled program says that it needs, and what the device says
    was the peak of this process.
    """
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    facts: dict[str, Any] = {"compile_seconds": time.perf_counter() - start}
    need = compiled.memory_analysis()
    if need is not None:
        facts["temporary_mib"] = need.temp_size_in_bytes / 2**20
    result = jax.block_until_ready(compiled(*arguments))
    times: list[float] = []
    while len(times) < RUNS and sum(times) < BUDGET:
        start = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    facts["seconds"] = float(np.median(times))
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in statistics:
        facts["peak_mib"] = statistics["peak_bytes_in_use"] / 2**20
    return facts, result


class Rows:
    """Rows of a part, written as they come: what a limit of time cuts off is lost."""

    def __init__(self, path: Path):
        """Begin a file, a row a line."""
        self._path = path
        path.write_text("")

    def add(self, case: str, who: str, **facts: Any) -> None:
        """Write one row."""
        with self._path.open("a") as file:
            file.write(json.dumps({"case": case, "who": who, **facts}) + "\n")

    def attempt(self, case: str, who: str, function: Callable[[], dict]) -> None:
        """Write the row of a function, or why it failed."""
        try:
            self.add(case, who, **function())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            self.add(case, who, failed=reason[:300])
