"""Run as `python -m experiments.gromov.large`: two clouds of 20,000 points, streamed.

The second cloud is drawn anew from the same law and turned. Prints time, peak memory of
the process, and how well the plan finds the turn. `--peers <python with OTT-JAX>` runs
OTT-JAX's low-rank solver afterwards.
"""

import argparse
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import peer_process
from experiments.gromov import judge
from jaxsns import PointCloud
from jaxsns.quadratic import solve_quadratic

LIMIT = 1200.0  # seconds that a peer may take
DIMENSION, DECAY = 10, 0.8  # of the deviations from axis to axis


def clouds(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points [n, d] of a skewed law, others turned, and the turn [d, d]."""
    r = np.random.default_rng(0)
    scales = DECAY ** np.arange(DIMENSION)
    scales /= np.linalg.norm(scales)
    x = (r.exponential(size=(n, DIMENSION)) - 1) * scales
    turn = np.linalg.qr(r.normal(size=(DIMENSION, DIMENSION)))[0]
    y = (r.exponential(size=(n, DIMENSION)) - 1) * scales
    return x, y @ turn, turn


def low_rank(python: str, x: np.ndarray, y: np.ndarray, rank: int) -> None:
    """Print the time and loss of OTT-JAX's plan of a rank."""
    with peer_process.start(python, "experiments.gromov.worker") as peer:
        arrays, options = {"x": x, "y": y}, {"rank": rank}
        out, facts = peer.call("ott_low_rank", arrays, options, limit=LIMIT)
    loss = judge.quadratic_of_points(x, y, out["q"] / out["g"], out["r"])
    print(f"OTT-JAX, rank {rank}: {facts}, Q(P) {loss:.5f}")


def main() -> None:
    """Solve once; the time includes compilation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--peers", help="a Python that has OTT-JAX")
    parser.add_argument("--rank", type=int, default=10, help="of OTT-JAX's plan")
    arguments = parser.parse_args()
    x, y, turn = clouds(arguments.points)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    begin = time.perf_counter()
    solution = solve_quadratic(
        PointCloud(x, x, streamed=True),
        PointCloud(y, y, streamed=True),
        epsilon=arguments.epsilon,
        init="random",
        key=jax.random.key(1),
        tolerance=1e-3,
        inner_tolerance=1e-4,
        max_steps=60,
    )
    solution = jax.block_until_ready(solution)
    print(f"{time.perf_counter() - begin:.1f} s, compilation included; {solution!r}")
    print(f"passes over the plan: {int(solution.linear.counts.passes)}")
    print(f"Q(P) {float(solution.quadratic_cost):.5f}")
    back = solution.barycentric(y) @ jnp.asarray(turn.T, jnp.float32)
    found = [float(jnp.corrcoef(back[:, k], x[:, k])[0, 1]) for k in range(3)]
    print("correlation along the first axes:", ", ".join(f"{c:.3f}" for c in found))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB")
    if arguments.peers is not None:
        low_rank(arguments.peers, np.asarray(x), np.asarray(y), arguments.rank)


if __name__ == "__main__":
    main()
