"""Checks inside `shard_map` on four simulated devices; run by `test_devices`.

The number of devices must be set before JAX starts. Prints one line a check.
"""

import functools
import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import AxisType, NamedSharding, PartitionSpec  # noqa: E402

import jaxsns  # noqa: E402
from jaxsns import gaussian  # noqa: E402

jax.config.update("jax_enable_x64", True)
MESH = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
LANES, ALL = PartitionSpec("d"), PartitionSpec()
RANDOM = np.random.default_rng(0)
WEIGHTS = jnp.asarray(RANDOM.normal(size=40))  # of potentials, so that gradients tell
TIGHT = {"epsilon": 0.1, "tolerance": 1e-12}


def weighed(x):
    return jnp.vdot(WEIGHTS[: x.shape[-1]], x)


def solve(cost, scale, **options):
    out = jaxsns.solve(scale * cost, **TIGHT, **options)
    return weighed(out.f - jnp.mean(out.f)) + out.value


def divergence(points, scale):
    x, y = points[:4], scale * points[4:]
    return jaxsns.sinkhorn_divergence(x, y, **TIGHT).value


def layer(points, scale):
    return jaxsns.transport_loss(points[:4], scale * points[4:], epsilon=0.1)


def sort(values, scale):
    return weighed(jaxsns.soft_sort(scale * values))


def partly(cost, scale):
    return jaxsns.solve_partial(scale * cost, share=0.6, **TIGHT).value


def barycentre(masses, scale):
    masses = masses / jnp.sum(masses, axis=1, keepdims=True)
    places = jnp.arange(masses.shape[1]) / masses.shape[1]
    costs = jnp.broadcast_to((places[:, None] - places) ** 2, (2, 5, 5))
    weights = jax.nn.softmax(masses[:, 0])
    found = jaxsns.fixed_support_barycentre(scale * costs, masses, weights, **TIGHT)
    return weighed(found.mass)


def free_barycentre(points, scale):
    masses, start = jnp.full((2, 4), 0.25), points[0, :3]
    found = jaxsns.free_support_barycentre(
        scale * points, masses, start, epsilon=0.5, tolerance=1e-10
    )
    return weighed(found.support[:, 0])


def mean_covariance(roots, scale):
    covariances = roots @ jnp.swapaxes(roots, 1, 2) + scale * jnp.eye(2)
    return weighed(gaussian.barycentre(covariances).matrix[0])


def streamed(points, scale):
    cloud = jaxsns.PointCloud(points[:4], scale * points[4:], streamed=True, block=16)
    return jaxsns.solve(cloud, epsilon=0.5, tolerance=1e-10).value


def quadratic(costs, scale):
    x = scale * (costs + costs.T)
    return jaxsns.solve_quadratic(x, x[:4, :4], epsilon=0.5, tolerance=1e-11).f[0]


def penalised(cost, scale):
    square = lambda plan: jnp.sum(plan**2)
    found = jaxsns.solve_penalised(scale * cost, square, epsilon=0.1, tolerance=1e-11)
    return jnp.vdot(found.plan(), cost[::-1])


def layers(points, scale):
    """Layers of a batch, with a mask and an epsilon that all devices have."""
    x, y = points[..., :4, :], scale * points[..., 4:, :]
    prototypes = jnp.asarray([[0.1, 0.3], [0.7, 0.5], [0.4, 0.9]]) * scale
    pooled = jaxsns.transport_pooling(x, prototypes, epsilon=0.3)
    mixed = jaxsns.transport_attention(x, y[..., :3, :], y[..., 1:4, :], epsilon=0.3)
    scores = jnp.einsum("...nd,...md->...nm", x, y)
    matched = jaxsns.dustbin_matching(scores, scale, epsilon=0.3)
    seen = jnp.asarray([True, True, True, False, True])
    where = jnp.broadcast_to(seen, y.shape[:-1])
    loss = jaxsns.transport_loss(x, y, where_targets=where, epsilon=0.3 * scale)
    sums = loss + jnp.sum(pooled**2, (-1, -2)) + jnp.sum(mixed**2, (-1, -2))
    return sums + jnp.sum(matched**2, (-1, -2))


def sparse(cost, scale):
    return jaxsns.solve_sparse(scale * cost, gamma=0.5).transport_cost


def low_rank(cost, scale):
    return jaxsns.solve_low_rank(scale * cost, rank=2, epsilon=0.1).value


def constrained(cost, scale):
    bounds = [(jnp.eye(4, 5), 0.3, 0.5)]
    return jaxsns.solve_constrained(scale * cost, bounds, epsilon=0.1).value


def option(**options):
    return lambda cost, scale: solve(cost, scale, **options)


FUNCTIONS = {  # name -> function of what a device has and of what all have, size
    "auto": (solve, (6, 7)),
    "larger": (solve, (33, 5)),
    "sinkhorn": (option(method="sinkhorn"), (6, 7)),
    "unbalanced": (option(rho_a=1.0, rho_b=2.0), (6, 7)),
    "divergence": (divergence, (9, 2)),
    "layer": (layer, (9, 2)),
    "sort": (sort, (6,)),
    "partial": (partly, (6, 7)),
    "barycentre": (barycentre, (2, 5)),
    "free": (free_barycentre, (2, 4, 2)),
    "gaussian": (mean_covariance, (2, 2, 2)),
    "streamed": (streamed, (9, 2)),
    "quadratic": (quadratic, (5, 5)),
    "penalised": (penalised, (4, 5)),
    "layers": (layers, (9, 2)),
    "sparse": (sparse, (4, 5)),
    "low rank": (low_rank, (4, 5)),
    "constrained": (constrained, (4, 5)),
}


def same(name, mine, theirs, rtol):
    """Print what differs, and fail if it is too much or not a number."""
    scale = np.max(np.abs(theirs))
    difference = float(np.max(np.abs(np.asarray(mine) - np.asarray(theirs))) / scale)
    print(f"{name}: {difference:.1e}", flush=True)
    assert scale > 0, name
    assert difference <= rtol, name


@functools.cache
def alone(name):
    """Value and gradient of one problem on one device, a program for all checks."""
    return jax.jit(jax.value_and_grad(FUNCTIONS[name][0], (0, 1)))


def each_alone(name, data):
    """Values, gradients, and their sum in what all have, of problems one by one."""
    found = [alone(name)(x, jnp.asarray(1.1)) for x in data]
    values, changes, others = zip(*((v, c, o) for v, (c, o) in found), strict=True)
    return np.asarray(values), np.asarray(changes), sum(others)


def inside(name, lanes):
    """Value and gradient of a device's own problems are those of each by itself."""
    function, size = FUNCTIONS[name]
    data = jnp.asarray(RANDOM.random((4 * lanes, *size)))
    both = jax.value_and_grad(function, (0, 1))

    def mine(data, scale):
        if lanes > 1:
            total = lambda d, s: jnp.sum(jax.vmap(function, (0, None))(d, s))
            value, (change, other) = jax.value_and_grad(total, (0, 1))(data, scale)
            return value[None], change, other
        value, (change, other) = both(data[0], scale)
        return value[None], change[None], other

    # What all devices have gets the sum of their derivatives.
    divided = jax.shard_map(
        mine, mesh=MESH, in_specs=(LANES, ALL), out_specs=(LANES, LANES, ALL)
    )
    value, change, other = jax.jit(divided)(data, jnp.asarray(1.1))
    values, changes, others = each_alone(name, data)
    sums = values.reshape(4, lanes).sum(axis=1)
    same(f"{name} x {lanes}, value", value, sums, 1e-9)
    same(f"{name} x {lanes}, gradient", change, changes, 1e-7)
    same(f"{name} x {lanes}, shared", other, others, 1e-7)


def explicit(name, batched=lambda f: jax.vmap(f, (0, None))):
    """A batch on the axes that `make_mesh` gives by default, and stays divided."""
    function, size = FUNCTIONS[name]
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    data = jnp.asarray(RANDOM.random((8, *size)))
    divided = jax.device_put(data, NamedSharding(mesh, LANES))

    def total(data, scale):
        values = batched(function)(data, scale)
        return jnp.sum(values), values

    run = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, value), (change, other) = run(divided, jnp.asarray(1.1))
    values, changes, others = each_alone(name, data)
    assert value.sharding.spec[0] == change.sharding.spec[0] == "d", name
    same(f"{name}, explicit, value", value, values, 1e-9)
    same(f"{name}, explicit, gradient", change, changes, 1e-7)
    same(f"{name}, explicit, shared", other, others, 1e-7)


def whole_batch():
    """A batch as one array is refused by name; under `vmap` it may be divided."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    values = jnp.asarray(RANDOM.random((8, 6)))
    divided = jax.device_put(values, NamedSharding(mesh, LANES))
    with pytest.raises(TypeError, match="values must not be divided along Explicit"):
        jaxsns.soft_sort(divided)


def second_axis():
    """A batch of two axes of which the second is divided."""
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    data = jnp.asarray(RANDOM.random((2, 4, 9, 2)))
    spec = PartitionSpec(None, "d")
    divided = jax.device_put(data, NamedSharding(mesh, spec))
    found = jax.jit(layers)(divided, jnp.asarray(1.1))
    assert found.sharding.spec == spec
    wanted = jax.jit(layers)(data, jnp.asarray(1.1))
    same("second axis", found, wanted, 1e-9)


def refused(name):
    """What cannot run on such a batch says so, compiled or not."""
    function, size = FUNCTIONS[name]
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Explicit,))
    data = jax.device_put(jnp.ones((8, *size)), NamedSharding(mesh, LANES))
    lanes = lambda data: jax.vmap(function, (0, None))(data, 1.1)
    for run in (lanes, jax.jit(lanes)):
        with pytest.raises(TypeError, match=f"solve_{name} cannot be batched"):
            run(data)


def nothing_varies():
    """What all devices have alike gives what is known to be alike."""
    cost = jnp.asarray(RANDOM.random((6, 7)))
    run = lambda cost: jax.value_and_grad(solve)(cost, 1.1)
    divided = jax.shard_map(run, mesh=MESH, in_specs=ALL, out_specs=ALL)
    value, change = jax.jit(divided)(cost)
    values, (changes, _) = alone("auto")(cost, jnp.asarray(1.1))
    same("nothing varies, value", value, values, 1e-12)
    same("nothing varies, gradient", change, changes, 1e-10)


if __name__ == "__main__":
    assert jax.device_count() == 4
    checks = {name: lambda name=name: inside(name, 1) for name in FUNCTIONS}
    for name in ("auto", "sort"):
        checks[f"{name} in lanes"] = lambda name=name: inside(name, 2)
    for name in ("auto", "larger", "divergence", "layer", "sort", "sparse", "low rank"):
        checks[f"{name} explicit"] = lambda name=name: explicit(name)
    checks["layers explicit"] = lambda: explicit("layers", lambda f: f)
    for name in ("quadratic", "penalised", "constrained"):
        checks[f"{name} explicit"] = lambda name=name: refused(name)
    checks["second axis"] = second_axis
    checks["whole batch"] = whole_batch
    checks["nothing varies"] = nothing_varies
    for check in sys.argv[1:] or checks:
        checks[check]()
