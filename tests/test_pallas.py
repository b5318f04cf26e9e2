"""Kernels written in Pallas against the plain way and NumPy; interpreted on a CPU.

On an accelerator the same tests run the compiled kernels. All in float32.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

import jaxsns
from jaxsns import control
from jaxsns.geometry import pallas_softmin
from jaxsns.solvers.batched import pallas_sweeps

pytestmark = [
    pytest.mark.accelerator,
    # jax 0.12 says so where a kernel is lowered for a GPU; D48 says what follows.
    pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning"),
]

R = np.random.default_rng(0)
KERNEL = {"tpu": "tpu_custom_call"}
# From jax 0.12 Triton lowers only where there is a GPU.
if tuple(map(int, jax.__version__.split(".")[:2])) < (0, 12):
    KERNEL |= {"cuda": "xla.gpu.triton", "rocm": "xla.gpu.triton"}


def number(x):
    return jnp.asarray(x, jnp.float32)


def points(n, m, d):
    return number(R.normal(size=(n, d))), number(R.normal(size=(m, d)))


def clouds(n=150, m=70, d=2):
    x, y = points(n, m, d)
    cloud = lambda pallas: jaxsns.PointCloud(x, y, streamed=True, pallas=pallas)
    return cloud(True), cloud(False)


def lowered(function, platform, *arguments):
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))


@pytest.mark.parametrize(("n", "m", "d"), [(1, 1, 1), (400, 65, 3), (128, 64, 16)])
def test_log_sums(n, m, d):
    x, y = points(n, m, d)
    h = number(R.normal(size=n)).at[: n // 3].set(-1e20)
    got = jax.jit(pallas_softmin.log_sums)(x, h, y, number(3.0))
    x, y, h = (np.asarray(v, np.float64) for v in (x, y, h))
    z = h[:, None] - 3 * ((x[:, None] - y) ** 2).sum(-1)
    expected = z.max(0) + np.log(np.exp(z - z.max(0)).sum(0))
    np.testing.assert_allclose(got, expected, rtol=5e-7, atol=2e-6)


def test_log_sums_by_the_side_of_a_tpu(monkeypatch):
    """The program for Mosaic, interpreted; the side of a GPU has the same kernel."""
    if jax.default_backend() != "cpu":
        pytest.skip("compiled there by the other tests")
    x, y = points(150, 65, 3)
    h = number(R.normal(size=150))
    run = lambda: jax.jit(lambda *v: pallas_softmin.log_sums(*v))(x, h, y, number(3.0))
    mine = run()
    chosen = lambda *operands, tpu, **others: tpu(*operands)
    monkeypatch.setattr(control, "platform_dependent", chosen)
    jax.clear_caches()  # what was compiled for the CPU must not be found
    with pltpu.force_tpu_interpret_mode():
        np.testing.assert_allclose(run(), mine, rtol=5e-7, atol=2e-6)
    jax.clear_caches()


def test_soft_minima_marginals_and_their_derivatives():
    def everything(cloud, f, g):
        epsilon, local = number(0.3), cloud.formed()
        soft = [local.softmin(p, epsilon, axis) for axis, p in ((0, f), (1, g))]
        return soft, local.marginals(f, g, epsilon)

    def loss(x, cloud, f, g):
        moved = jaxsns.PointCloud(x, cloud.y, streamed=True, pallas=cloud.pallas)
        soft, sums = everything(moved, f, g)
        return sum(jnp.sum(p**2) for p in soft) + sum(jnp.sum(p**2) for p in sums)

    def both(cloud, f, g):
        first = jax.grad(loss)(cloud.x, cloud, f, g)
        again = jax.jvp(lambda x: jax.grad(loss)(x, cloud, f, g), (cloud.x,), (first,))
        return everything(cloud, f, g), first, again[1]

    mine, plain = clouds()
    f, g = number(R.normal(size=150)) - 3, number(R.normal(size=70))
    got, expected = jax.jit(both)(mine, f, g), jax.jit(both)(plain, f, g)
    for p, q in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        size = float(jnp.max(jnp.abs(q)))
        np.testing.assert_allclose(p, q, rtol=0, atol=5e-6 * size)


@pytest.mark.parametrize("options", [{}, {"rho_a": 1.0, "rho_b": 2.0}])
def test_streamed_sinkhorn(options):
    a, b = number(R.dirichlet(np.ones(150))), number(R.dirichlet(np.ones(70)))
    a, b = a.at[3].set(0) / (1 - a[3]), b.at[0].set(0) / (1 - b[0])

    def solve(cloud):
        # Far above rounding, which would decide on which sweep the error is met.
        more = {"method": "sinkhorn", "tolerance": 1e-3} | options
        return jaxsns.solve(cloud, a, b, epsilon=0.5, **more)

    mine, plain = (jax.jit(solve)(cloud) for cloud in clouds())
    assert int(mine.status) == int(plain.status) == jaxsns.Status.CONVERGED
    assert int(mine.counts.sweeps) == int(plain.counts.sweeps)
    np.testing.assert_allclose(mine.f, plain.f, rtol=0, atol=2e-5)
    np.testing.assert_allclose(mine.g, plain.g, rtol=0, atol=2e-5)


def test_lanes():
    def solve(cost):
        return jaxsns.solve(cost, number([0.5, 0.5, 0]), epsilon=0.5)

    def lanes(pallas):
        kept = lambda s: (s.f, s.g, s.error, s.status, s.counts)
        one = lambda c: kept(solve(jaxsns.Dense(c, pallas=pallas)))
        return jax.jit(jax.vmap(one))

    cost = number(R.random((1100, 3, 4)))
    got, expected = lanes(True)(cost), lanes(False)(cost)
    for p, q in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=1e-6)
    for platform, name in KERNEL.items():
        assert name in lowered(lanes(True), platform, cost[:2]).as_text()
    assert name not in lowered(lanes(False), platform, cost[:2]).as_text()


def test_sweeps():
    """Against the loop in float64, lane by lane."""
    n, m, lanes = 4, 5, 3
    matrix = R.random((n, m, lanes)) + 0.1
    a, b, u = (R.random((k, lanes)) + 0.1 for k in (n, m, n))
    a[1, 2] = 0
    rows = R.random((n, lanes)) + 0.5
    got = pallas_sweeps.sweeps(3, *map(number, (a, b, matrix, u, rows)))
    for _ in range(3):
        u = u * a / np.where(a > 0, rows, rows + 1)
        v = b / np.einsum("ijl,il->jl", matrix, u)
        rows = u * np.einsum("ijl,jl->il", matrix, v)
    for p, q in zip(got, (u, v), strict=True):
        np.testing.assert_allclose(p, q, rtol=3e-6)
    assert pallas_sweeps.fits(8, 8)
    assert not pallas_sweeps.fits(8, 9)


def test_soft_minima_lower_for_each_platform():
    cloud = clouds()[0]
    softmin = lambda f: cloud.formed().softmin(f, number(0.5), 0)
    for platform, name in KERNEL.items():
        assert name in lowered(softmin, platform, jnp.zeros(150, jnp.float32)).as_text()


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        ("needs cost='sqeuclidean'; got 'l1'", {"cost": "l1"}),
        ("at most 16 dimensions; got 17", {"x": np.zeros((2, 17))}),
        ("pallas must be True or False; got 1.5", {"pallas": 1.5}),
    ],
)
def test_what_has_no_kernel_is_refused(words, fields):
    fields = {"x": np.zeros((2, 2)), "pallas": True} | fields
    error = TypeError if "True or False" in words else ValueError
    with pytest.raises(error, match=re.escape(words)):
        jaxsns.PointCloud(y=np.zeros((2, 2)), **fields)
