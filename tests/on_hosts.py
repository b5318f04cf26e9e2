"""One of several processes that solve a problem together; run by `test_devices`.

Arguments: number of this process, number of processes, address of the first one, and
the file into which this process writes its part of the potentials. The processes find
each other by `jax.distributed`, as they do on a cluster.
"""

import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import jaxsns  # noqa: E402


def masses():
    """[200] unequal masses: with equal ones potentials are hardly determined."""
    a = jnp.arange(1.0, 201.0)
    return a / jnp.sum(a)


def main(number, count, address, path):
    """Solve on all devices of all processes, and save what every process has."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, count, number)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",), axis_types=(AxisType.Auto,))
    random = np.random.default_rng(0)
    points = random.normal(size=(2, 200, 2))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    whole = NamedSharding(mesh, PartitionSpec())
    x = jax.make_array_from_callback((200, 2), rows, lambda index: points[0][index])
    y = jax.make_array_from_callback((200, 2), whole, lambda index: points[1][index])

    @jax.jit
    def solve(x, y):
        cloud = jaxsns.PointCloud(x, y, mesh=mesh, axis="rows")
        solution = jaxsns.solve(cloud, masses(), epsilon=0.05, tolerance=1e-13)
        out = solution.f, solution.g, solution.status
        return jax.lax.with_sharding_constraint(out, whole)

    f, g, status = jax.tree.map(jax.device_get, solve(x, y))
    np.savez(path, f=f, g=g, status=status, devices=jax.device_count())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
