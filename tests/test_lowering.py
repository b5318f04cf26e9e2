"""Every public entry lowers for NVIDIA and AMD GPUs and TPUs, with nothing of a CPU.

Nothing runs here: one trace is lowered for the three platforms at once, in float32,
and the program is read. `jax_enable_x64` is on, so that a float64 that slips in shows.
"""

import collections
import re

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import gaussian
from jaxsns.numerics import matmul

pytest.importorskip("flatbuffers", reason="jax.export comes with the extra 'export'")

PLATFORMS = ("cuda", "rocm", "tpu")
EPSILON = calls.EPSILON
DATA = calls.data(False)

# Calls outside of XLA that a platform has, and what they are there. Cholesky is an
# operation of XLA itself on a TPU.
CUSTOM_CALLS = {
    "cusolver_potrf_ffi": "Cholesky by cuSOLVER, on cuda",
    "hipsolver_potrf_ffi": "Cholesky by hipSOLVER, on rocm",
    "cusolver_syevd_ffi": "eigenvalues by cuSOLVER, on cuda",
    "hipsolver_syevd_ffi": "eigenvalues by hipSOLVER, on rocm",
    "cusolver_gesvdj_ffi": "singular values by cuSOLVER, on cuda",
    "hipsolver_gesvdj_ffi": "singular values by hipSOLVER, on rocm",
    "cusolver_geqrf_ffi": "QR by cuSOLVER, on cuda",
    "hipsolver_geqrf_ffi": "QR by hipSOLVER, on rocm",
    "cusolver_orgqr_ffi": "Q of QR by cuSOLVER, on cuda",
    "hipsolver_orgqr_ffi": "Q of QR by hipSOLVER, on rocm",
    "Eigh": "eigenvalues, known to XLA's compiler for TPUs",
    "Qr": "QR, known to XLA's compiler for TPUs",
    "ProductOfElementaryHouseholderReflectors": "Q of QR, likewise",
}
HOST = re.compile(r"callback|infeed|outfeed|stablehlo\.(send|recv)")
CALL = re.compile(r"custom_call @([\w.$]+)")
DOT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*")
FLOAT_DOT = re.compile(r"tensor<(?:\w+x)*(?:f32|f64|bf16|f16)>")
OPERATION = re.compile(r"^\s*%\S+ = \"?([\w.]+)")
DOUBLES = re.compile(r"tensor<(?:\d+x)+f64>")
# A Python number is a weak float64 until it meets float32: it may be handed on. What
# is computed with numbers alone is folded when compiled, so scalars are left out.
HANDED_ON = {
    "call",
    "func.call",
    "stablehlo.broadcast_in_dim",
    "stablehlo.compare",  # of options, lanes of which are compared with 0
    "stablehlo.constant",
    "stablehlo.convert",
    "stablehlo.dynamic_slice",
    "stablehlo.gather",
    "stablehlo.reshape",
    "stablehlo.select",
    "stablehlo.while",
}
IN_DOUBLE = {
    # optax's assignment works in JAX' default float
    "dense": "round_to_permutation",
    "Gromov-Wasserstein, uses": "match_graphs",
    # proofs are made in the widest float that JAX has
    "exact": "solve_exact",
    "bijection": "solve_bijection, of exact blocks",
}


def _cost(solve):
    return lambda d: solve(d.cost, d.a, d.b)


def _value(cost, a, b, **options):
    return jaxsns.solve(cost, a, b, epsilon=EPSILON, **options).value


def _second_order(d):
    direction = jnp.ones_like(d.cost)
    along = lambda cost: jax.grad(_value)(cost, d.a, d.b)
    return jax.jvp(along, (d.cost,), (direction,))[1]


def _lanes(d, size=3):
    return jnp.stack([d.cost * (k + 1) for k in range(size)])


def _tiny(d):
    solve = lambda c: _value(c, d.a, d.b)
    return jax.vmap(jax.value_and_grad(solve))(_lanes(d))


def _tiny_fixed(d):
    solve = lambda c: _value(c, d.a, d.b, early_stop=False, max_steps=9)
    return jax.vmap(solve)(_lanes(d))


def _wide(d, rows=33):
    """A cost too large for lanes in step."""
    return jnp.tile(d.cost, (rows // calls.SIZE + 1, 9))[:rows]


def _wide_lanes(d):
    costs = jnp.stack([_wide(d), 2 * _wide(d)])
    f = lambda c: jnp.sum(jaxsns.solve(c, epsilon=EPSILON).f ** 2)
    return jax.vmap(jax.grad(f))(costs)


def _common_cost(d):
    cost = _wide(d)
    masses = jnp.ones((2, cost.shape[0]), cost.dtype) / cost.shape[0]
    return jax.vmap(lambda a: jaxsns.solve(cost, a, epsilon=EPSILON).g)(masses)


def _methods(d):
    out = [_value(d.cost, d.a, d.b, method=m) for m in ("newton", "sinkhorn")]
    square = d.cost + d.cost.T
    return out, _value(square, d.a, d.a, method="symmetric")


def _history(d):
    solution = jaxsns.solve(d.cost, d.a, d.b, epsilon=EPSILON, history=True)
    return solution.history, solution.conditioning()


def _streamed_gradient(d):
    def f(x):
        cloud = jaxsns.PointCloud(x, d.y, streamed=True)
        solution = jaxsns.solve(cloud, d.a, d.b, epsilon=EPSILON)
        return jnp.sum(solution.f**2) + solution.transport_cost

    return jax.grad(f)(d.x)


def _streamed_sinkhorn(d):
    cloud = jaxsns.PointCloud(d.x, d.y, streamed=True)
    return _value(cloud, d.a, d.b, method="sinkhorn")


def _grid_gradient(d):
    def f(a):
        grid = jaxsns.Grid((jnp.arange(5, dtype=a.dtype),))
        return jnp.sum(jaxsns.solve(grid, a, d.b, epsilon=EPSILON).f ** 2)

    return jax.grad(f)(d.a)


def _partial_gradient(d):
    def f(cost):
        solution = jaxsns.solve_partial(cost, d.a, d.b, share=0.5, epsilon=EPSILON)
        return jnp.sum(solution.plan() ** 2)

    return jax.grad(f)(d.cost)


def _fixed_barycentre_gradient(d):
    def f(x):
        cloud, masses = jaxsns.PointCloud(x, d.y), jnp.stack([d.a, d.b])
        out = jaxsns.fixed_support_barycentre(cloud, masses, epsilon=EPSILON)
        return jnp.sum(out.mass**2)

    return jax.grad(f)(d.x)


def _free_barycentre_gradient(d):
    def f(x):
        points, masses = jnp.stack([x, d.y]), jnp.stack([d.a, d.b])
        out = jaxsns.free_support_barycentre(points, masses, x[:2], epsilon=EPSILON)
        return jnp.sum(out.support**2)

    return jax.grad(f)(d.x)


def _ordering_gradient(d):
    def f(values):
        options = {"epsilon": EPSILON}
        out = jnp.sum(jaxsns.soft_sort(values, **options) ** 2)
        out += jnp.sum(jaxsns.soft_rank(values, **options) ** 2)
        return out + jnp.sum(jaxsns.soft_quantile(values, 0.5, **options))

    return jax.grad(f)(d.values)


def _layers_gradient(d):
    def f(x):
        out = jaxsns.transport_loss(x, d.y, epsilon=EPSILON)
        out += jnp.sum(jaxsns.transport_attention(x, d.y, d.x, epsilon=EPSILON) ** 2)
        pooled = jaxsns.transport_pooling(x, d.y[:2], epsilon=EPSILON)
        return out + jnp.sum(pooled**2)

    return jax.grad(f)(d.x)


def _gromov(d):
    def f(x):
        own, other = jaxsns.PointCloud(x, x), jaxsns.PointCloud(d.y, d.y)
        out = jaxsns.solve_quadratic(own, other, d.a, d.b, epsilon=EPSILON)
        return out.value, out.plan()

    return jax.value_and_grad(f, has_aux=True)(d.x)


def _gromov_dense(d):
    own, other = d.cost + d.cost.T, d.cost.T + 2 * d.cost + d.cost.T
    out = jaxsns.solve_quadratic(own, other, d.a, d.b, epsilon=EPSILON)
    return out.value, jaxsns.quadratic_map(out, own, d.y)


def _gromov_uses(d):
    costs = [d.cost + d.cost.T, d.cost.T + 2 * d.cost]
    out = jaxsns.gromov_wasserstein_divergence(*costs, d.a, d.b, epsilon=EPSILON)
    return out.value, jaxsns.match_graphs(*costs, epsilon=EPSILON)


def _constrained_gradient(d):
    f = lambda a: jnp.sum(calls.constrained(d._replace(a=a))["plan"] ** 2)
    return jax.grad(f)(d.a)


def _gaussians(d):
    unit = jnp.eye(2, dtype=d.x.dtype)
    s, t = (matmul(p.T, p) + unit for p in (d.x, d.y))

    def f(s):
        out = gaussian.bures(s, t) + jnp.sum(gaussian.geodesic(s, t, d.values[0]))
        out += jnp.sum(gaussian.logarithm(s, t)) + jnp.sum(gaussian.optimal_map(s, t))
        mean = gaussian.barycentre(jnp.stack([s, t]))
        return out + jnp.sum(mean.matrix)

    return jax.value_and_grad(f)(s)


def _gaussian_lanes(d):
    unit = jnp.eye(2, dtype=d.x.dtype)
    covs = unit[None] * (1 + d.values)[:, None, None]
    return jax.vmap(jax.grad(lambda s: jnp.sum(gaussian.bures(s, unit))))(covs)


def _space_barycentre(d):
    cost = d.cost + d.cost.T
    spaces, masses = jnp.stack([cost, 2 * cost]), jnp.stack([d.a, d.a])
    return jaxsns.space_barycentre(spaces, masses, cost, epsilon=EPSILON).cost


def _mixtures(d):
    unit = jnp.eye(2, dtype=d.x.dtype)
    make = lambda x, mass: gaussian.Mixture(
        mass, x, jnp.broadcast_to(unit, (x.shape[0], 2, 2))
    )
    x, y = make(d.x, d.a), make(d.y, d.b)
    out = gaussian.mixture_transport(x, y, epsilon=EPSILON)
    moved = gaussian.affine_map(d.x[0], unit, d.y[0], 2 * unit)
    return out.solution.f, out.map(d.x), moved


MORE = {
    "value": _cost(_value),
    "gradient": _cost(jax.grad(_value, (0, 1, 2))),
    "second order": _second_order,
    "vmap, tiny": _tiny,
    "vmap, tiny, fixed": _tiny_fixed,
    "vmap, each its cost": _wide_lanes,
    "vmap, one cost": _common_cost,
    "other methods": _methods,
    "history and conditioning": _history,
    "streamed gradient": _streamed_gradient,
    "streamed sinkhorn": _streamed_sinkhorn,
    "grid gradient": _grid_gradient,
    "partial gradient": _partial_gradient,
    "fixed barycentre, gradient": _fixed_barycentre_gradient,
    "free barycentre, gradient": _free_barycentre_gradient,
    "ordering gradient": _ordering_gradient,
    "layers gradient": _layers_gradient,
    "Gromov-Wasserstein, points": _gromov,
    "Gromov-Wasserstein, matrices": _gromov_dense,
    "Gromov-Wasserstein, uses": _gromov_uses,
    "constrained, gradient": _constrained_gradient,
    "Gaussians": _gaussians,
    "Gaussians, vmap": _gaussian_lanes,
    "Gaussians, mixtures": _mixtures,
    "Gromov-Wasserstein, barycentre": _space_barycentre,
}
ENTRIES = calls.CALLS | MORE


def program(function):
    """The StableHLO of a function of DATA, for all platforms in one text."""
    return jax.export.export(jax.jit(function), platforms=PLATFORMS)(DATA).mlir_module()


def _computed_in_double(text):
    """Operations on arrays in float64, by name; numbers that are handed on are none."""
    lines = (line for line in text.splitlines() if DOUBLES.search(line))
    names = (match.group(1) for line in lines if (match := OPERATION.search(line)))
    return collections.Counter(name for name in names if name not in HANDED_ON)


@pytest.mark.parametrize("name", ENTRIES)
def test_lowers_for_accelerators(name):
    text = program(ENTRIES[name])
    assert not HOST.search(text), HOST.search(text)
    assert set(CALL.findall(text)) <= set(CUSTOM_CALLS)
    low = [x for x in DOT.findall(text) if "HIGHEST, HIGHEST" not in x]
    assert not [line for line in low if FLOAT_DOT.search(line)]
    if name not in IN_DOUBLE:
        assert not _computed_in_double(text)


@pytest.mark.parametrize("name", IN_DOUBLE)
def test_nothing_is_double_unless_it_is_asked_for(name):
    with jax.enable_x64(False):
        assert "f64" not in program(ENTRIES[name])


def test_what_the_test_looks_for_is_found():
    """Each of the faults above, made on purpose."""
    shape = jax.ShapeDtypeStruct((), jnp.float32)

    def back(d):
        return jax.pure_callback(np.sin, shape, d.a[0])

    def double(d):
        return d.a * jnp.linspace(0.0, 1.0, 5).astype(d.a.dtype)

    assert HOST.search(jax.jit(back).lower(DATA).as_text())
    assert _computed_in_double(program(double))
    dots = DOT.findall(program(lambda d: jnp.vdot(d.a, d.b)))
    assert dots
    assert not any("HIGHEST" in x for x in dots)
    on_cpu = jax.jit(jax.lax.linalg.cholesky).lower(DATA.cost).as_text()
    assert not set(CALL.findall(on_cpu)) <= set(CUSTOM_CALLS)
