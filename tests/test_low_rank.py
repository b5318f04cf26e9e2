"""Low-rank plans against dense formulas, closed forms and all labels of few points."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

import jaxsns
from jaxsns import Status
from jaxsns.low_rank.clustering import Pairs, cluster

R = np.random.default_rng(0)
N, M, RANK = 14, 17, 4


def _given(dtype=np.float64):
    x, y = R.normal(size=(N, 2)).astype(dtype), R.normal(size=(M, 2)).astype(dtype) + 1
    a, b = R.random(N).astype(dtype) + 0.1, R.random(M).astype(dtype) + 0.1
    a[3] = b[5] = 0
    return x, y, a / a.sum(), b / b.sum()


def _squares(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(axis=-1)


@pytest.mark.parametrize("kind", ["points", "matrix", "dot"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_factors_have_the_marginals_and_the_value_is_that_of_the_plan(kind, dtype):
    x, y, a, b = _given(dtype)
    cost = -x @ y.T if kind == "dot" else _squares(x, y)
    given = cost if kind == "matrix" else jaxsns.PointCloud(x, y)
    if kind == "dot":
        given = jaxsns.PointCloud(x, y, "dot")
    found = jaxsns.solve_low_rank(given, a, b, rank=RANK)
    assert found.raise_if_failed() is found
    assert found.value.dtype == dtype
    q, r, g = (np.asarray(t, np.float64) for t in (found.q, found.r, found.g))
    assert min(q.min(), r.min(), g.min()) >= 0
    small = 10 * np.finfo(dtype).eps
    for sums, wanted in (
        (q.sum(axis=1), a),
        (r.sum(axis=1), b),
        (q.sum(axis=0), g),
        (r.sum(axis=0), g),
    ):
        np.testing.assert_allclose(sums, wanted, atol=small)
    plan = (q / np.where(g > 0, g, 1)) @ r.T
    np.testing.assert_allclose(found.plan(), plan, atol=small)
    assert np.linalg.matrix_rank(plan, tol=1e-6) <= RANK
    size = np.abs(cost).max()
    np.testing.assert_allclose(found.value, (cost * plan).sum(), atol=small * size)
    v = R.normal(size=(M, 3)).astype(dtype)
    np.testing.assert_allclose(found.apply(v), plan @ v, atol=10 * small)
    w = R.normal(size=N).astype(dtype)
    np.testing.assert_allclose(found.apply(w, axis=0), plan.T @ w, atol=10 * small)
    mass = np.where(a > 0, a, 1)[:, None]
    np.testing.assert_allclose(found.barycentric(v), plan @ v / mass, atol=100 * small)


def test_ranks_at_both_ends_are_known():
    x, y, a, b = _given()
    cloud, cost = jaxsns.PointCloud(x, y), _squares(x, y)
    one = jaxsns.solve_low_rank(cloud, a, b, rank=1)
    np.testing.assert_allclose(one.value, a @ cost @ b, rtol=1e-13)
    whole = jaxsns.solve_low_rank(cloud, a, b, rank=4 * N, epsilon=0.05)
    full = jaxsns.solve(cost, a, b, epsilon=0.05).transport_cost
    # Starts are drawn at random, but never twice: 56 of them find all 14 rows.
    np.testing.assert_allclose(whole.value, full, rtol=1e-8)
    values = [
        float(jaxsns.solve_low_rank(cloud, a, b, rank=r).value) for r in (1, 2, 4, 8)
    ]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("seed", range(3))
def test_the_cost_is_that_of_the_best_labels_of_a_small_problem(seed):
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(7, 2)), random.normal(size=(7, 2)) + 1
    cost = _squares(x, y)
    rows, columns = linear_sum_assignment(cost)
    cost = cost[:, columns]  # row i is matched with column i
    best = np.inf
    for labels in itertools.product(range(2), repeat=7):
        z = np.eye(2)[list(labels)]
        g = np.maximum(z.sum(axis=0), 1e-9)
        best = min(best, np.sum((z.T @ cost @ z).diagonal() / g) / 7)
    found = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), rank=2, epsilon=0.01)
    # Steps end at a local minimum, 2.2 % above the best with seed 0.
    assert best * 0.99 < found.value < best * 1.03


def test_clusters_are_where_no_step_lowers_the_cost():
    left, right = R.normal(size=(2, 60, 3))
    right += left  # monotone on the whole, as pairs of a plan are
    mass = R.random(60) + 0.1
    pairs = Pairs(*(jnp.asarray(t) for t in (-left, right, mass)))

    def cost_and_next(labels):
        means = [np.zeros((2, 3))] * 4
        for k in set(labels):
            own = labels == k
            means[k] = [np.average(t[own], 0, mass[own]) for t in (-left, right)]
        total = sum(mass[labels == k].sum() * np.dot(*means[k]) for k in range(4))
        scores = [-left @ m + right @ n - np.dot(n, m) for n, m in means]
        return total, np.argmin(scores, axis=0)

    for seed in range(4):
        labels, cost = cluster(pairs, 4, jax.random.key(seed))
        labels = np.asarray(labels)
        assert set(labels) == set(range(4))
        expected, following = cost_and_next(labels)
        np.testing.assert_allclose(cost, expected, rtol=1e-12)
        assert cost_and_next(following)[0] > expected - 1e-12


def test_modes_agree_and_the_derivative_holds_factors_fixed():
    x, y, a, b = (jnp.asarray(t) for t in _given())

    def value(x):
        return jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), a, b, rank=RANK)

    plain, jitted = value(x), jax.jit(value)(x)
    lanes = jax.jit(jax.vmap(value))(jnp.stack([x, x + 1]))
    for name in ("q", "r", "value"):
        want = getattr(plain, name)
        np.testing.assert_allclose(getattr(jitted, name), want, atol=1e-9)
        np.testing.assert_allclose(getattr(lanes, name)[0], want, atol=1e-9)
    gradient = jax.jit(jax.grad(lambda x: value(x).value))(x)
    plan = np.asarray(plain.plan())
    expected = 2 * (plan.sum(axis=1)[:, None] * x - plan @ y)
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_bad_input_is_named():
    cost = R.random((3, 4))
    for rank, kind in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(kind, match="rank must be"):
            jaxsns.solve_low_rank(cost, rank=rank)
    cost[1, 2] = np.inf
    with pytest.raises(ValueError, match="cost must be finite"):
        jaxsns.solve_low_rank(cost, rank=2)
    found = jax.jit(lambda c: jaxsns.solve_low_rank(c, rank=2))(jnp.asarray(cost))
    assert int(found.status) == Status.INVALID_INPUT
    assert np.isnan(found.value)
    assert np.isnan(found.q).all()


def test_a_plan_that_did_not_converge_gives_factors_that_fit():
    x, y, a, b = _given()
    cloud = jaxsns.PointCloud(x, y)
    found = jaxsns.solve_low_rank(cloud, a, b, rank=RANK, max_steps=1)
    assert int(found.status) == Status.MAX_STEPS
    assert found.error > 1e-3
    np.testing.assert_allclose(jnp.sum(found.q, axis=1), a, atol=1e-15)
    np.testing.assert_allclose(jnp.sum(found.r, axis=1), b, atol=1e-15)
    np.testing.assert_allclose(jnp.sum(found.r, axis=0), found.g, atol=1e-15)
    with pytest.raises(jaxsns.NotConvergedError, match="MAX_STEPS"):
        found.raise_if_failed()


def test_costs_of_pairs_that_are_forbidden_are_refused():
    x, y, a, b = _given()
    cloud = jaxsns.PointCloud(x, y, lambda u, v: jnp.where(u[0] > v[0], jnp.inf, 1.0))
    with pytest.raises(ValueError, match="cost must be finite"):
        jaxsns.solve_low_rank(cloud, a, b, rank=2, epsilon=0.1)


@pytest.mark.parametrize("sizes", [(1, 6), (6, 1), (1, 1)])
def test_one_row_or_one_column_in_float32(sizes):
    x, y = (R.normal(size=(k, 2)).astype(np.float32) for k in sizes)
    found = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), rank=3, epsilon=0.1)
    assert int(found.status) == Status.CONVERGED
    np.testing.assert_allclose(found.value, _squares(x, y).mean(), rtol=1e-6)


def test_clouds_that_are_apart_keep_their_clusters_in_float32():
    x, y, a, b = _given(np.float32)
    # Moving a cloud changes the cost of every plan by the same, so no cluster.
    near = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y), a, b, rank=2, epsilon=0.1)
    far = jaxsns.solve_low_rank(jaxsns.PointCloud(x, y + 30), a, b, rank=2, epsilon=0.1)
    np.testing.assert_allclose(far.q, near.q, atol=1e-7)
    plan = np.asarray(far.plan(), np.float64)
    expected = np.sum(plan * _squares(x.astype(float), y.astype(float) + 30))
    np.testing.assert_allclose(far.value, expected, rtol=1e-6)
