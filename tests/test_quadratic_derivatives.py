"""Derivatives of quadratic problems, for every kind of space and of input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsns import Grid, PointCloud, Status
from jaxsns.quadratic import LowRank, solve_quadratic

N, M = 6, 5
R = np.random.default_rng(0)
WEIGHTS, TARGETS = R.normal(size=(N, M)), R.normal(size=(M, 2))
POINTS = {"x": R.normal(size=(N, 2)), "y": R.normal(size=(M, 3))}
REST = {
    "a": R.dirichlet(np.full(N, 5.0)),
    "b": R.dirichlet(np.full(M, 5.0)),
    "linear": R.uniform(size=(N, M)),
    "epsilon": np.asarray(0.3),
    "alpha": np.asarray(0.6),
}
TIGHT = {"tolerance": 1e-12, "inner_tolerance": 1e-13, "init": "eccentricity"}
TIGHT["method"] = "sinkhorn"  # which compiles least


def squares(x):
    return np.sum((x[:, None] - x[None]) ** 2, axis=-1)


def factors(x):
    one, norm = jnp.ones_like(x[:, :1]), jnp.sum(x**2, axis=1, keepdims=True)
    left = jnp.concatenate([norm, one, -2 * x], axis=1)
    return LowRank(left, jnp.concatenate([one, norm, x], axis=1))


cloud = lambda *args: lambda x: PointCloud(x, x, *args)
same = lambda x: x
MATRICES = {"x": np.sqrt(squares(POINTS["x"])), "y": squares(POINTS["y"]) / 2}
KERNELS = {k: np.exp(-squares(x) / 4) for k, x in POINTS.items()}
AXES = {"x": POINTS["x"], "y": MATRICES["y"]}
grid = lambda x: Grid(x=(x[:3, 0], x[:2, 1]))
# Kind: what the spaces are made of, how, and more arguments. Penalties, matrices with
# a share, and what is streamed are in test_quadratic.
KINDS = {
    "matrices": (MATRICES, (same, same), {}),
    "euclidean": (POINTS, (cloud("euclidean"), cloud("euclidean")), {}),
    "grid": (AXES, (grid, same), {}),
    "kl": (KERNELS, (same, same), {"loss": "kl", "epsilon": 0.1}),
    "clouds": (POINTS, (cloud(), cloud()), {}),
    "factors": (POINTS, (factors, factors), {}),
    "clouds and factors, share": (POINTS, (cloud(), factors), {"share": 0.7}),
}


def functionals(solution):
    """Value, plan, potentials and projection, a number each."""
    rows = jnp.sum(WEIGHTS, axis=1)
    return jnp.stack(
        [
            solution.value,
            jnp.sum(WEIGHTS * solution.plan()),
            jnp.sum(rows * solution.f) + jnp.sum(solution.g**2),
            jnp.sum(solution.barycentric(jnp.asarray(TARGETS)) ** 2),
        ]
    )


def given(kind):
    """The data of a kind, and its functionals and status as a function of them.

    Not jitted, so that kinds that become matrices share what is compiled inside.
    """
    spaces, make, more = KINDS[kind]
    loss = more.get("loss", "square")
    numbers = {k: v for k, v in more.items() if k != "loss"}
    data = {k: jnp.asarray(v) for k, v in (spaces | REST | numbers).items()}

    def run(q):
        rest = {k: v for k, v in q.items() if k not in ("x", "y", "a", "b")}
        x, y = make[0](q["x"]), make[1](q["y"])
        solution = solve_quadratic(x, y, q["a"], q["b"], loss=loss, **rest, **TIGHT)
        return functionals(solution), solution.status

    return data, run


def direction(name, value):
    """Symmetric for a matrix within a space, of total zero for masses."""
    d = np.random.default_rng(1).normal(size=value.shape)
    if name in ("x", "y") and value.shape[0] == value.shape[-1]:
        d = d + d.T
    if name in ("a", "b"):
        d = value * (d - np.sum(d * value) / np.sum(value))
    return jnp.asarray(d)


@pytest.mark.parametrize("kind", list(KINDS))
def test_derivatives_are_differences_of_tight_solves(kind):
    data, run = given(kind)
    assert int(run(data)[1]) == Status.CONVERGED
    step = 1e-5
    for name, value in data.items():
        t = {k: jnp.zeros_like(v) for k, v in data.items()}
        t[name] = direction(name, value)
        moved = lambda s, t=t: run({k: data[k] + s * t[k] for k in data})[0]
        wanted = (moved(step) - moved(-step)) / (2 * step)
        got = jax.jvp(lambda q: run(q)[0], (data,), (t,))[1]
        size = 1 + jnp.max(jnp.abs(wanted))
        assert jnp.max(jnp.abs(got - wanted)) < 4e-6 * size, name


def test_gradients_under_vmap_are_those_of_each_lane():
    data, run = given("matrices")
    slope = jax.jit(jax.grad(lambda q: jnp.sum(run(q)[0])))
    other = dict(data, epsilon=data["epsilon"] * 1.5)
    lanes = jax.tree.map(lambda *v: jnp.stack(v), data, other)
    both = jax.jit(jax.vmap(slope))(lanes)
    for lane, q in enumerate((data, other)):
        alone = slope(q)
        for name in data:
            np.testing.assert_allclose(
                both[name][lane], alone[name], rtol=1e-7, atol=1e-9
            )


def test_a_derivative_at_a_bifurcation_is_nan():
    # Two spaces of two groups each. For groups of equal mass the product stops being a
    # minimum at epsilon = alpha.
    groups = [np.repeat([0.0, 1.0], k) for k in ((3, 3), (3, 2))]
    x, y = (np.abs(g[:, None] - g[None]) for g in groups)
    a, b = (0.5 / np.where(g == 0, np.sum(g == 0), np.sum(g)) for g in groups)
    options = TIGHT | {"epsilon": 0.5, "alpha": 0.5, "init": "product"}
    solution = lambda m: solve_quadratic(x, y, a, b, linear=m, **options)
    at, towards = jnp.zeros((N, M)), jnp.asarray(WEIGHTS)
    assert bool(solution(at).converged)
    plan, moved = jax.jvp(lambda m: solution(m).plan(), (at,), (towards,))
    np.testing.assert_allclose(plan, np.outer(a, b), atol=1e-12)
    assert np.isnan(moved).all()
    # The value needs no linear system.
    _, moved = jax.jvp(lambda m: solution(m).value, (at,), (towards,))
    np.testing.assert_allclose(moved, a @ WEIGHTS @ b / 2, rtol=1e-9)
