"""One problem on all devices of all processes of a job, whoever launched them.

`jax.distributed.initialize()` reads the addresses from Slurm, Open MPI or a Kubernetes
indexed job by itself; elsewhere give them as arguments. Every process runs this file:

    srun python -m experiments.large_scale.cluster                       Slurm
    mpirun python -m experiments.large_scale.cluster                     Open MPI
    python -m experiments.large_scale.cluster --address HOST:PORT \
        --processes 2 --process 0                                        by hand

Here, two processes on one machine: the last form twice, with --process 0 and 1.
"""

import argparse
import time

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxsns


def main() -> None:
    """Solve, and let the first process say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", help="of the first process, HOST:PORT")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    parser.add_argument("--points", type=int, default=20_000)
    parser.add_argument("--epsilon", type=float, default=1e-2, help="of largest cost")
    options = parser.parse_args()
    if jax.config.jax_platforms in (None, "", "cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(options.address, options.processes, options.process)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))
    divided = NamedSharding(mesh, PartitionSpec("rows"))
    whole = NamedSharding(mesh, PartitionSpec())
    # On a cluster each process would read its own rows; here all draw the same points.
    n = options.points - options.points % jax.device_count()
    host = np.random.default_rng(0).normal(size=(2, n, 3)).astype(np.float32)
    x = jax.make_array_from_callback((n, 3), divided, lambda index: host[0][index])
    y = jax.make_array_from_callback((n, 3), whole, lambda index: host[1][index])

    @jax.jit
    def solve(x, y):
        cloud = jaxsns.PointCloud(x, y, mesh=mesh, axis="rows")
        solution = jaxsns.solve(
            cloud, epsilon=options.epsilon, relative_to="max", tolerance=1e-4
        )
        shares = solution.error, solution.status, solution.counts, solution.value
        return jax.lax.with_sharding_constraint(shares, whole)

    jax.block_until_ready(solve(x, y))
    start = time.perf_counter()
    error, status, counts, value = jax.device_get(solve(x, y))
    seconds = time.perf_counter() - start
    if jax.process_index() == 0:
        print(
            f"{n} x {n} on {jax.device_count()} devices of {jax.process_count()} "
            f"processes: {jaxsns.describe(status)}; value {value:.6g}, error "
            f"{error:.1e}, {counts.passes} passes, {seconds:.1f} s"
        )
    assert np.isfinite(value)


if __name__ == "__main__":
    main()
