"""Costs, their derivatives at awkward places, scales, and the few operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

import jaxsns
from jaxsns import Dense, PointCloud, costs
from jaxsns.geometry import column_maxima

R = np.random.default_rng(0)
X, Y = R.normal(size=(6, 7)), R.normal(size=(5, 7))
SCIPY = {
    "sqeuclidean": dict(metric="sqeuclidean"),
    "euclidean": dict(metric="euclidean"),
    "l1": dict(metric="cityblock"),
    "cosine": dict(metric="cosine"),
}


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("d", [2, 7])
def test_named_costs_match_scipy(name, d):
    got = PointCloud(jnp.asarray(X[:, :d]), jnp.asarray(Y[:, :d]), name).dense().cost
    expected = cdist(X[:, :d], Y[:, :d], **SCIPY[name])
    np.testing.assert_allclose(got, expected, atol=1e-13)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_pnorm_matches_scipy_and_is_one_function_a_p(p):
    got = PointCloud(jnp.asarray(X), jnp.asarray(Y), costs.pnorm(p)).dense().cost
    np.testing.assert_allclose(got, cdist(X, Y, "minkowski", p=p), atol=1e-13)
    assert costs.pnorm(p) is costs.pnorm(p)


def test_a_function_of_two_points():
    def cost(x, y):
        return jnp.sum(jnp.abs(x - y) ** 3)

    got = PointCloud(jnp.asarray(X), jnp.asarray(Y), cost).dense().cost
    expected = (np.abs(X[:, None] - Y[None]) ** 3).sum(-1)
    np.testing.assert_allclose(got, expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("cost", "d"), [(cost, 2) for cost in (*SCIPY, *map(costs.pnorm, (1.0, 1.5, 3.0)))]
    + [("sqeuclidean", 7), ("euclidean", 7), (costs.pnorm(1.5), 7)]
)  # fmt: skip
def test_gradients_are_finite_at_coinciding_points(cost, d):
    x = jnp.asarray(np.vstack([X[:, :d], X[:2, :d], np.zeros((1, d))]))

    def loss(x):
        return jaxsns.solve(PointCloud(x, x[::-1], cost), epsilon=0.5).transport_cost

    gradient, second = jax.jit(lambda x: jax.jvp(jax.grad(loss), (x,), (x + 1,)))(x)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.isfinite(second))


def test_squared_distances_far_from_the_origin_keep_their_digits():
    offset = 1e6
    got = costs.sqeuclidean(jnp.asarray(X + offset), jnp.asarray(Y + offset))
    np.testing.assert_allclose(got, cdist(X, Y, "sqeuclidean"), rtol=1e-8)


def test_dense_operations_match_numpy():
    cost, epsilon = np.abs(R.normal(size=(6, 5))), 0.3
    f, g = R.normal(size=6), R.normal(size=5)
    geometry, e = Dense(jnp.asarray(cost)), jnp.asarray(epsilon)
    plan = np.exp((f[:, None] + g[None] - cost) / epsilon)
    f, g = jnp.asarray(f), jnp.asarray(g)
    np.testing.assert_allclose(geometry.plan(f, g, e), plan, rtol=1e-12)
    for axis, vector in ((1, g), (0, f)):
        shifted = (np.expand_dims(vector, 1 - axis) - cost) / epsilon
        expected = -epsilon * logsumexp(shifted, axis=axis)
        np.testing.assert_allclose(
            geometry.softmin(vector, e, axis), expected, rtol=1e-12
        )
        oriented = plan if axis == 1 else plan.T
        np.testing.assert_allclose(
            geometry.plan_times(f, g, e, vector, axis), oriented @ vector, rtol=1e-12
        )
        largest = geometry.largest(f, g, e, 3, axis)
        expected = -np.sort(-oriented, axis=1)[:, :3]
        np.testing.assert_allclose(np.exp(largest.log), expected, rtol=1e-12)
        taken = np.take_along_axis(oriented, np.asarray(largest.indices), 1)
        np.testing.assert_allclose(taken, expected, rtol=1e-12)
    np.testing.assert_allclose(
        geometry.transport_cost(f, g, e), (plan * cost).sum(), rtol=1e-12
    )
    kernel, top = geometry.absorb(f, e)
    np.testing.assert_allclose(np.asarray(kernel.matrix).max(axis=0), 1.0)
    expected = np.exp((np.asarray(f)[:, None] - cost - np.asarray(top)) / epsilon)
    np.testing.assert_allclose(kernel.matrix, expected, rtol=1e-12)


@pytest.mark.parametrize("scale", ["max", "mean", "median", "std"])
def test_scales(scale):
    cost = np.abs(R.normal(size=(6, 5))) * 40
    number = getattr(np, scale)(cost)
    relative = jaxsns.solve(cost, epsilon=0.1, relative_to=scale)
    absolute = jaxsns.solve(cost, epsilon=0.1 * number)
    np.testing.assert_allclose(relative.epsilon, 0.1 * number, rtol=1e-12)
    np.testing.assert_allclose(relative.f, absolute.f, atol=1e-7)
    scaled = jaxsns.solve(cost, epsilon=0.1, scale_cost=scale)
    np.testing.assert_allclose(scaled.epsilon, 0.1, rtol=1e-12)
    np.testing.assert_allclose(scaled.f * number, absolute.f, atol=1e-7)
    cloud = PointCloud(jnp.asarray(X), jnp.asarray(Y))
    matrix = cdist(X, Y, "sqeuclidean")
    both = [
        jaxsns.solve(c, epsilon=0.1, scale_cost=scale).value for c in (cloud, matrix)
    ]
    np.testing.assert_allclose(both[0], both[1], rtol=1e-9)


def test_scales_do_not_see_atoms_without_mass():
    cost = np.abs(R.normal(size=(6, 5)))
    padded = np.vstack([cost, np.full((2, 5), 1e6)])
    a = np.r_[np.full(6, 1 / 6), 0, 0]
    for scale in ("max", "mean", "median", "std"):
        one = jaxsns.make_problem(cost, epsilon=1.0, relative_to=scale).epsilon
        two = jaxsns.make_problem(padded, a, epsilon=1.0, relative_to=scale).epsilon
        np.testing.assert_allclose(one, two, rtol=1e-12)


def test_default_epsilon_is_a_twentieth_of_the_standard_deviation():
    cost = R.random((6, 5))
    np.testing.assert_allclose(jaxsns.solve(cost).epsilon, 0.05 * cost.std())


@pytest.mark.parametrize("n", [1, 5, 8, 9, 24, 61])
def test_maxima_of_columns(monkeypatch, n):
    monkeypatch.setattr(column_maxima, "SMALL", 0)
    cost, a = R.normal(size=(n, 7)), R.normal(size=n)
    both = lambda c, a: (c - a[:, None], -c)
    got = jax.jit(lambda c, a: column_maxima.maxima(both, c, a))(cost, a)
    np.testing.assert_array_equal(got[0], (cost - a[:, None]).max(0))
    np.testing.assert_array_equal(got[1], (-cost).max(0))
    many = jnp.asarray(R.normal(size=(3, n, 7)))
    got = jax.vmap(lambda c: column_maxima.maxima(jnp.sin, c))(many)
    np.testing.assert_allclose(got, np.sin(many).max(1), rtol=1e-15)
    bad = jnp.asarray(cost).at[n - 1, 3].set(jnp.nan)
    assert np.isnan(column_maxima.maxima(lambda c: c, bad)[3])
