"""One solve in a process of its own, so that its peak memory is its own.

`python -m experiments.large_scale.case '{"n": 20000, "d": 2, ...}'` prints one line of
JSON. Costs are squared distances of normal points, scaled to at most 1.
"""

import json
import resource
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments.large_scale.judge import true_error
from jaxsns.geometry import Streamed


def points(n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """[n, d] twice, such that the largest squared distance is 1."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(n, d))
    largest, squares = 0.0, (y**2).sum(1)
    for start in range(0, n, 500):
        block = x[start : start + 500]
        cost = (block**2).sum(1)[:, None] + squares - 2 * block @ y.T
        largest = max(largest, cost.max())
    return x / largest**0.5, y / largest**0.5


def peak() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def unit(x: jax.Array, y: jax.Array, epsilon: float) -> float:
    """Median seconds of one streamed pass: row and column sums of a plan."""
    geometry = Streamed(x, y)
    f = jnp.zeros(len(x), x.dtype)
    run = jax.jit(lambda f: geometry.marginals(f, f, jnp.asarray(epsilon, f.dtype)))
    jax.block_until_ready(run(f))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run(f))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main(case: dict) -> dict:
    """Solve, look at time and memory, then judge."""
    n, d, epsilon = case["n"], case["d"], case["epsilon"]
    dtype = jnp.dtype(case["dtype"])
    host = [p.astype(dtype) for p in points(n, d, case["seed"])]
    x, y = map(jnp.asarray, host)
    method = case["method"]
    if method == "plain":
        method = jaxsns.SinkhornOptions(overrelaxation=False)

    @jax.jit
    def solve(x, y, steps):
        cloud = jaxsns.PointCloud(x, y, streamed=True)
        return jaxsns.solve(
            cloud,
            epsilon=epsilon,
            tolerance=case["tolerance"],
            method=method,
            max_steps=steps,
        )

    start = time.perf_counter()
    compiled = solve.lower(x, y, case["steps"]).compile()
    compile_seconds = time.perf_counter() - start
    seconds = []
    for _ in range(case["repeats"]):
        start = time.perf_counter()
        solution = jax.block_until_ready(compiled(x, y, case["steps"]))
        seconds.append(time.perf_counter() - start)
    memory = peak()
    one = unit(x, y, epsilon)
    error = true_error(*host, solution.f, solution.g, epsilon)
    return {
        **case,
        "status": jaxsns.Status(int(solution.status)).name,
        "error": error,
        "met": bool(error <= case["tolerance"] and solution.converged),
        "seconds": statistics.median(seconds),
        "compile_seconds": compile_seconds,
        "pass_seconds": one,
        "peak_gib": memory,
        **{k: int(v) for k, v in solution.counts._asdict().items()},
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps(main(json.loads(sys.argv[1]))))
