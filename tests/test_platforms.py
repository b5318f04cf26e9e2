"""Where a choice is made by platform, the other side gives the same answers.

`control.platform_dependent` is the one place at which the package asks for the
platform. Here it takes the default side, which an accelerator would, on the CPU.
Tolerances are ten times what was measured in float64.
"""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import control, gaussian
from jaxsns.geometry import memory
from jaxsns.linear import lapack, mapping
from jaxsns.solvers.batched import in_step

R = np.random.default_rng(0)
PACKAGE = pathlib.Path(jaxsns.__file__).parent
ASKING = {"default_backend", "devices", "local_devices", "platform_dependent"}
# Where the package asks for the platform, and the test that takes the other side.
CHOICES = {
    "control.py": "the function that is replaced",
    "exact/costs.py": "exact",
    "geometry/column_maxima.py": "dense",
    "geometry/memory.py": "test_memory_of_a_device",
    "geometry/pallas.py": "compiled kernels: test_pallas, on an accelerator",
    "layers/projection.py": "projection",
    "linear/lapack.py": "matrices",
    "linear/mapping.py": "test_maps, and all others",
    "solvers/batched/in_step.py": "tiny",
    "solvers/batched/joint.py": "each its cost",
}


def both(monkeypatch, function, *arguments):
    """What a function gives on a CPU, and with the choices of an accelerator."""
    mine = jax.jit(lambda *x: function(*x))(*arguments)
    # What the package compiled for one platform must not be found by the other.
    with monkeypatch.context() as patch:
        taken = []

        def default_side(*operands, default, **platforms):
            taken.append(sorted(platforms))
            return default(*operands)

        patch.setattr(control, "platform_dependent", default_side)
        jax.clear_caches()
        theirs = jax.jit(lambda *x: function(*x))(*arguments)
        jax.clear_caches()
    assert taken
    assert all(names == ["cpu"] for names in taken)
    return mine, theirs


def same(mine, theirs, atol):
    for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=0, atol=atol)
        else:
            np.testing.assert_array_equal(x, y)


def _solve(cost, a=None):
    solution = jaxsns.solve(cost, a, epsilon=0.02)
    return solution.f, solution.g, solution.value, solution.status


def _gradient(cost):
    def f(cost):
        solution = jaxsns.solve(cost, epsilon=0.05)
        return jnp.sum(solution.f**2), (solution.f, solution.g, solution.status)

    return jax.grad(f, has_aux=True)(cost)


def tiny():
    """More lanes than a chunk on a CPU has, and more left after the first sweeps."""
    return jax.vmap(_solve), R.random((2 * in_step.CHUNK // 512 + 3, 16, 32))


def each_its_cost():
    """Sweeps on own kernels on a CPU only; then one by one, or side by side.

    The linear solves of the derivative are a batch too.
    """
    return jax.vmap(_gradient), R.random((2, 33, 35))


def one_cost():
    cost = jnp.asarray(R.random((33, 35)))
    masses = R.dirichlet(np.full(33, 5.0), 3)
    return jax.vmap(lambda a: _solve(cost, a)), masses


def streamed():
    x = jnp.asarray(R.random((2, 40, 2)))

    def solve(y):
        cloud = jaxsns.PointCloud(x[0], y, streamed=True)
        solution = jaxsns.solve(cloud, epsilon=0.2, method="sinkhorn")
        return solution.f, solution.g, solution.status

    return jax.vmap(solve), x


def matrices():
    """Factors, eigenvalues and singular values of batches, small and not."""
    roots = [R.normal(size=(3, d, d)) for d in (5, lapack.SMALL + 1)]
    covs = tuple(jnp.asarray(r @ r.mT + np.eye(r.shape[-1])) for r in roots)

    def function(covs):
        out = []
        for cov in covs:
            factor = jnp.tril(lapack.cholesky(cov))
            solved = jax.vmap(lapack.cholesky_solve)(factor, cov[:, 0])
            pair = jax.vmap(lambda s: gaussian.bures(s, jnp.eye(len(s))))(cov)
            out += [factor, solved, lapack.eigh(cov)[0], lapack.svd(cov)[1], pair]
        return out

    return function, covs


def dense():
    """Column maxima of a cost that is large enough for the loop over a few rows."""
    cost = jnp.asarray(R.random((300, 400)))
    return lambda c: jaxsns.geometry.Dense(c).absorb(c[:, 0], 0.1)[1], cost


def exact():
    """Least reduced costs of a few active rows at a time, or of all."""

    def function(cost):
        s = jaxsns.solve_exact(cost)
        return s.f, s.g, s.value, s.plan(), s.status

    return function, R.random((9, 9))


def projection():
    """More matrices than a block on a CPU has."""
    return jaxsns.sinkhorn_projection, R.normal(size=(700, 4, 4))


CASES = {
    "tiny": (tiny, 1e-14),
    "each its cost": (each_its_cost, 3e-10),
    "one cost": (one_cost, 1e-12),
    "streamed": (streamed, 1e-12),
    "matrices": (matrices, 1e-14),
    "dense": (dense, 0),
    "exact": (exact, 1e-14),
    "projection": (projection, 0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_other_side_gives_the_same(monkeypatch, name):
    case, atol = CASES[name]
    function, argument = case()
    mine, theirs = both(monkeypatch, function, jax.tree.map(jnp.asarray, argument))
    same(mine, theirs, atol)


def test_maps(monkeypatch):
    def function(x):
        return mapping.each(lambda v: v * 2, lambda v: v * 3)(x)

    mine, theirs = both(monkeypatch, function, jnp.arange(4.0))
    np.testing.assert_array_equal(mine * 3, theirs * 2)  # the sides were not one


def test_memory_of_a_device(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1 << 20}

    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert memory.device_bytes() == 1 << 20
    assert memory.fits(100, 100, jnp.float32)
    assert not memory.fits(200, 200, jnp.float32)
    monkeypatch.setattr(Device, "memory_stats", lambda self: None)
    assert memory.device_bytes() > 1 << 20  # of the host: better than no number


def test_nobody_else_asks_for_the_platform():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ASKING:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == set(CHOICES)
