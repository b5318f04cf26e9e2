"""Checks on eight simulated devices; a program of its own, run by `test_devices`.

The number of devices must be set before JAX starts. Prints one line a check.
"""

import os
import re
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import jaxsns  # noqa: E402
from jaxsns import Status  # noqa: E402

jax.config.update("jax_enable_x64", True)
MESH = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Auto,))
ROWS = NamedSharding(MESH, PartitionSpec("rows"))
COLLECTIVE = re.compile(
    r"= (\(?\w+\[[^=]*?) (all-gather|all-reduce|all-to-all|collective-permute)"
)


def moved(text):
    """Numbers that each collective of a compiled program moves, largest first."""
    out = []
    for shapes, kind in COLLECTIVE.findall(text):
        for shape in re.findall(r"\[([\d,]*)\]", shapes):
            out.append((int(np.prod([int(k) for k in shape.split(",") if k])), kind))
    return sorted(out, reverse=True)


def same(name, mine, theirs, atol):
    """Print what differs, and fail if it is too much."""
    difference = float(np.max(np.abs(np.asarray(mine) - np.asarray(theirs))))
    print(f"{name}: {difference:.1e}")
    assert difference <= atol, name


def loss(x, y, a, b, weights, fields):
    cloud = jaxsns.PointCloud(x, y, block=16, **dict(fields))
    solution = jaxsns.solve(cloud, a, b, epsilon=0.05, tolerance=1e-13)
    inner = jnp.vdot(weights, jnp.where(a > 0, solution.f, 0))
    means = jnp.sum(solution.barycentric(y))
    return inner + solution.transport_cost + means, solution


both = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), static_argnames="fields")


def points_divided(n, m):
    """Row points on eight devices: potentials, status, gradient, communication.

    Compared with a matrix on one, of 384 x 440 always: atoms without mass fill it up.
    """
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.normal(size=(k, 2))) for k in (n, m))
    a, b = jnp.asarray(random.random(n) + 0.1), jnp.full(m, 1 / m)
    a, weights = a / a.sum(), jnp.asarray(random.normal(size=n))
    given = jax.device_put(x, ROWS) if n % 8 == 0 else x
    fields = (("mesh", MESH), ("axis", "rows"))
    divided = both.lower(given, y, a, b, weights, fields).compile()
    (_, mine), gradient = divided(given, y, a, b, weights)
    fill = lambda t, size: jnp.zeros((size, *t.shape[1:])).at[: len(t)].set(t)
    rows, columns = (
        (fill(t, 384) for t in (x, a, weights)),
        (fill(t, 440) for t in (y, b)),
    )
    (x, a, weights), (y, b) = rows, columns
    (_, theirs), expected = both(x, y, a, b, weights, (("streamed", False),))
    assert int(mine.status) == Status.CONVERGED
    same(f"points {n} x {m}, f", mine.f, theirs.f[:n], 1e-10)
    same(f"points {n} x {m}, g", mine.g, theirs.g[:m], 1e-10)
    for k, size in enumerate((n, m)):
        scale = float(jnp.max(jnp.abs(expected[k])))
        name = f"points {n} x {m}, gradient {k}"
        same(name, gradient[k], expected[k][:size], 1e-8 * scale)
    most = moved(divided.as_text())[0]
    print("most moved at once", most)
    # Lists of 32 entries of two devices, or the mass between clusters: not the costs.
    assert most[0] <= max(64 * 512, 128 * 128) < n * m / 4


def scales_divided(n, m):
    """Scales of costs, where rows do not divide among devices."""
    x, y = (jnp.asarray(p) for p in np.random.default_rng(4).normal(size=(2, n, 2)))
    for name in ("max", "mean", "std"):
        mine, theirs = (
            jaxsns.make_problem(
                jaxsns.PointCloud(x, y[:m], **fields), epsilon=1.0, relative_to=name
            ).epsilon
            for fields in ({"mesh": MESH, "axis": "rows"}, {})
        )
        same(f"scale {name}", mine, theirs, 1e-12)


def lists_divided(n, m):
    """Largest entries along both axes of divided costs are those of the matrix."""
    random = np.random.default_rng(5)
    x, y = (jnp.asarray(random.normal(size=(k, 2))) for k in (n, m))
    f, g = (jnp.asarray(random.normal(size=k)) for k in (n, m))
    # Columns are what this geometry divides.
    divided = jaxsns.PointCloud(y, x, mesh=MESH, axis="rows").formed().transposed()
    dense = jaxsns.PointCloud(x, y).dense()
    for axis in (0, 1):
        mine = jax.jit(lambda e, k=axis: divided.largest(f, g, e, 7, k))(1.0)
        theirs = dense.largest(f, g, jnp.asarray(1.0), 7, axis)
        same(f"largest entries along {axis}", mine.indices, theirs.indices, 0)
        same(f"their logarithms along {axis}", mine.log, theirs.log, 1e-12)
        potential = f if axis == 0 else g
        soft = divided.softmin(potential, jnp.asarray(1.0), axis)
        expected = dense.softmin(potential, jnp.asarray(1.0), axis)
        same(f"soft minima along {axis}", soft, expected, 1e-12)


def sinkhorn_divided(n, m):
    """The same for over-relaxed Sinkhorn, streamed."""
    random = np.random.default_rng(3)
    x, y = (jnp.asarray(random.normal(size=(k, 2))) for k in (n, m))

    def run(**fields):
        cloud = jaxsns.PointCloud(x, y, streamed=True, **fields)
        return jaxsns.solve(cloud, epsilon=0.5, tolerance=1e-11, method="sinkhorn")

    mine, theirs = run(mesh=MESH, axis="rows"), run()
    assert int(mine.status) == int(theirs.status) == Status.CONVERGED
    same("sinkhorn, f", mine.f, theirs.f, 1e-10)


def matrix_divided(n, m):
    """A cost matrix divided by rows: Sinkhorn, Newton with conjugate gradients."""
    random = np.random.default_rng(1)
    cost = random.random((n, m))
    divided = jax.device_put(cost, NamedSharding(MESH, PartitionSpec("rows", None)))
    for method in ("sinkhorn", jaxsns.NewtonOptions(linear_solver="cg")):

        @jax.jit
        def run(cost, method=method):
            return jaxsns.solve(cost, epsilon=0.05, tolerance=1e-11, method=method)

        compiled = run.lower(divided).compile()
        mine, theirs = compiled(divided), run(jnp.asarray(cost))
        assert int(mine.status) == int(theirs.status) == Status.CONVERGED
        same(f"matrix, {theirs.method}, f", mine.f, theirs.f, 1e-9)
        most = moved(compiled.as_text())[0]
        print("most moved at once", most)
        assert most[0] <= 2 * max(n, m)


def batch_divided():
    """Problems divided among devices: no communication at all."""
    random = np.random.default_rng(2)
    costs = jnp.asarray(random.random((16, 12, 14)))
    part = PartitionSpec("rows")
    solve = jax.vmap(lambda c: jaxsns.solve(c, epsilon=0.05).f)
    divided = jax.jit(
        jax.shard_map(solve, mesh=MESH, in_specs=part, out_specs=part, check_vma=False)
    )
    compiled = divided.lower(jax.device_put(costs, ROWS)).compile()
    same("batch", compiled(jax.device_put(costs, ROWS)), solve(costs), 1e-12)
    assert not moved(compiled.as_text())


if __name__ == "__main__":
    checks = {
        "even": lambda: points_divided(384, 440),
        "uneven": lambda: points_divided(381, 437),
        "lists": lambda: lists_divided(48, 64),
        "scales": lambda: scales_divided(45, 37),
        "sinkhorn": lambda: sinkhorn_divided(381, 437),
        "matrix": lambda: matrix_divided(64, 80),
        "batch": batch_divided,
    }
    assert jax.device_count() == 8
    for check in sys.argv[1:] or checks:
        checks[check]()
