"""Our ways around slow code of XLA on a CPU against the plain ones, in milliseconds.

Run as `python -m experiments.lowerings`. The tables are in docs/decisions (D20, D25,
D26); a way that no longer wins on the oldest and the newest jax should go.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from experiments import record  # noqa: E402
from jaxsns.geometry import column_maxima, costs  # noqa: E402
from jaxsns.geometry.kernel import DenseKernel  # noqa: E402
from jaxsns.geometry.top_k import top_k  # noqa: E402

RUNS = 30
DTYPES = (jnp.float32, jnp.float64)
Row = tuple[str, Callable[..., Any], Callable[..., Any], tuple[jax.Array, ...]]


def least(function: Callable[..., Any], *arrays: jax.Array) -> float:
    """Milliseconds of the fastest run, compilation apart."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arrays))
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def _tops(cost: jax.Array, f: jax.Array) -> jax.Array:
    return f[:, None] - cost


def rows(dtype: Any) -> list[Row]:
    """What is compared: a name, our way, the plain way, and its arguments."""
    draw = lambda k, *shape: jax.random.uniform(jax.random.key(k), shape, dtype)
    loop = lambda cost, f: column_maxima.maxima(_tops, cost, f)
    plain = lambda cost, f: jnp.max(_tops(cost, f), axis=0)
    eight = lambda k, v: DenseKernel(k).squares_times(v)
    one = lambda k, v: jnp.sum(k * k * v[None, :], axis=1)
    out: list[Row] = []
    for n in (500, 1000, 2000):
        cost, f, v = draw(0, n, n), draw(1, n), draw(2, n)
        out.append((f"column maxima, n = {n}", loop, plain, (cost, f)))
        out.append((f"sums of squares, n = {n}", eight, one, (cost, v)))
    table = draw(3, 200, 20_000)
    native = lambda x: jax.lax.top_k(x, 32)[1]
    groups = lambda x: top_k(x, 32)
    out.append(("32 largest of 20,000, 200 rows", groups, native, (table,)))
    for d in (16, 32, 64, 256):
        x, y = draw(4, 1000, d), draw(5, 1000, d)
        differences = costs._all_pairs(costs._distances)
        out.append((f"distances, d = {d}", costs.euclidean, differences, (x, y)))
    return out


def main() -> None:
    """Print one table."""
    jax.config.update("jax_enable_x64", True)
    words = sys.argv[1:]
    lines = []
    for dtype in DTYPES:
        for name, ours, plain, arrays in rows(dtype):
            if all(word in name for word in words):
                mine, other = least(ours, *arrays), least(plain, *arrays)
                lines.append([name, jnp.dtype(dtype).name, mine, other, other / mine])
    print(record.describe_environment(record.environment()))
    headers = ["what", "dtype", "ours / ms", "plain / ms", "plain / ours"]
    print(record.table(lines, headers))


if __name__ == "__main__":
    main()
