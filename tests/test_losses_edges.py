"""Losses, layers and sorts at their edges: far apart, equal, single, padded."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.spatial.distance import cdist

import jaxsns
from jaxsns import Status
from jaxsns.geometry import Dense, Grid, PointCloud
from jaxsns.problem.arguments import LARGEST_ERROR, usable
from jaxsns.problem.scales import SCALES, statistic

R = np.random.default_rng(0)
each_dtype = pytest.mark.parametrize("dtype", ["f4", "f8"])


class Ended(NamedTuple):
    status: jax.Array
    error: jax.Array


@pytest.mark.parametrize("status", list(Status))
def test_a_result_counts_unless_it_is_meaningless(status):
    errors = jnp.asarray([0.0, LARGEST_ERROR, 1.1 * LARGEST_ERROR, jnp.nan])
    got = usable(Ended(jnp.full(4, int(status), jnp.int32), errors))
    expected = {
        Status.CONVERGED: [True] * 4,
        Status.STALLED: [True, True, False, False],
        Status.MAX_STEPS: [True, True, False, False],
    }
    np.testing.assert_array_equal(got, expected.get(status, [False] * 4))
    good = Ended(jnp.full(4, int(Status.CONVERGED), jnp.int32), errors)
    both = usable(good, Ended(jnp.full(4, int(status), jnp.int32), errors))
    np.testing.assert_array_equal(both, got)


def _dual(cost, a, b, epsilon, rho):
    """Value and plan in NumPy; with rho the entropy is relative to a b^T."""
    if rho is None:
        f, g = references.sinkhorn(cost, a, b, epsilon, 4000, 1e-12)
        plan = references.plan(cost, f, g, epsilon)
        return a @ f + b @ g - epsilon * plan.sum(), plan
    cost = cost - epsilon * np.log(a)[:, None] - epsilon * np.log(b)
    f, g = references.unbalanced(cost, a, b, epsilon, rho, rho, 1000)
    plan = references.plan(cost, f, g, epsilon)
    paid = rho * (a @ -np.expm1(-f / rho) + b @ -np.expm1(-g / rho))
    return paid - epsilon * plan.sum(), plan


def _divergence(x, y, a, b, epsilon, rho=None):
    """Value, and gradient in x, of clouds in float64."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    ab, plan = _dual(cdist(x, y, "sqeuclidean"), a, b, epsilon, rho)
    aa, own = _dual(cdist(x, x, "sqeuclidean"), a, a, epsilon, rho)
    bb, _ = _dual(cdist(y, y, "sqeuclidean"), b, b, epsilon, rho)
    moved = lambda p, z: 2 * (p.sum(1)[:, None] * x - p @ z)
    return ab - (aa + bb) / 2, moved(plan, y) - moved(own, x)


def test_the_loss_of_clouds_that_are_apart_is_a_number():
    x, y = R.normal(size=(2, 2, 12, 2)).astype("f4")
    a = np.full(12, 1 / 12)
    run = jax.value_and_grad(
        lambda x, y: _sum(jaxsns.transport_loss(x, y, epsilon=0.1))
    )
    value, gradient = jax.jit(run)(x, y + 10)
    expected = [_divergence(x[i], y[i] + 10, a, a, 0.1) for i in range(2)]
    np.testing.assert_allclose(value, sum(v for v, _ in expected), rtol=2e-6)
    slope = np.stack([g for _, g in expected])
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=3e-4 * np.abs(slope).max())


def _sum(x):
    return jnp.sum(x)


def test_quantiles_of_ordinary_numbers_are_numbers():
    values, levels = R.normal(size=(300, 24)).astype("f4"), np.float32([0.05, 0.95])
    run = lambda v: (jnp.mean(q := jaxsns.soft_quantile(v, levels)), q)
    gradient, got = jax.jit(jax.grad(run, has_aux=True))(values)
    assert np.isfinite(got).all()
    assert np.isfinite(gradient).all()
    # Each quantile is a mean of values: of (1, 1, ..), a shift of all, it is 1.
    np.testing.assert_allclose(gradient.sum(1), 1 / 300, rtol=1e-3)
    a, targets = np.full(24, 1 / 24), np.asarray([-1.0, 0, 1])
    for i in range(3):
        x = values[i].astype(float)
        cost = ((x - x.mean())[:, None] / x.std() - targets) ** 2
        b = np.asarray([0.05 - 0.5 / 24, 1 / 24, 0.95 - 0.5 / 24])
        f, g = references.sinkhorn(cost, a, b, 0.01, 4000)
        mean = 24 * references.plan(cost, f, g, 0.01)[:, 1] @ x
        np.testing.assert_allclose(got[0, i], mean, rtol=0, atol=2e-3)


# The divergence.


@functools.cache
def _everything(with_rho):
    """One program, one solve: value, distance, their gradients, second derivatives."""

    def run(x, y, a, b, epsilon, rho, along):
        def found(x):
            options = {"rho": rho} if with_rho else {}
            return jaxsns.sinkhorn_divergence(
                x, y, a, b, epsilon=epsilon, tolerance=1e-13, **options
            )

        def both(x):
            d = found(x)
            both = jnp.stack([d.value, d.distance])
            return both, both

        slopes = jax.jacrev(both, has_aux=True)
        (slopes, values), (second, _) = jax.jvp(slopes, (x,), (along,))
        return *values, *slopes, second[0]

    return jax.jit(run)


@pytest.mark.parametrize("rho", [None, 0.7])
def test_divergence_against_numpy(rho):
    x, y, along = R.normal(size=(3, 9, 3))
    a, b = R.random((2, 9)) + 0.1
    a, b = a / a.sum(), b / b.sum() * (1.0 if rho is None else 1.5)
    run = lambda x: _everything(rho is not None)(x, y, a, b, 2.0, rho or 1.0, along)
    value, distance, slope, distance_slope, second = run(x)
    expected, gradient = _divergence(x, y, a, b, 2.0, rho)
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    np.testing.assert_allclose(slope, gradient, rtol=0, atol=1e-10)
    np.testing.assert_allclose(distance**2, expected, rtol=1e-11)
    np.testing.assert_allclose(
        distance_slope, gradient / (2 * np.sqrt(expected)), rtol=0, atol=1e-10
    )
    h = 1e-5
    up, down = (run(x + t * along)[2] for t in (h, -h))
    np.testing.assert_allclose(second, (up - down) / (2 * h), rtol=0, atol=1e-7)


@pytest.mark.parametrize("rho", [None, 0.7])
@each_dtype
def test_equal_clouds_have_no_distance(rho, dtype):
    x = (10 * R.normal(size=(40, 20))).astype(dtype)
    other = x[R.permutation(40)]

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def run(x):
        d = jaxsns.sinkhorn_divergence(x, other, epsilon=100.0, rho=rho)
        return d.distance, d.value

    (distance, value), gradient = run(x)
    # Values of the terms are 500 and more.
    unit = 500 * np.finfo(dtype).eps
    assert 0 <= value < unit
    assert distance == np.sqrt(value)
    assert np.isfinite(gradient).all()


def test_a_distance_of_zero_has_gradient_zero():
    d = jaxsns.sinkhorn_divergence(R.normal(size=(4, 2)), R.normal(size=(4, 2)))
    of = lambda v: dataclasses.replace(d, value=v).distance
    for value, root, slope in ((0.0, 0, 0), (-1e-9, 0, 0), (4.0, 2, 0.25)):
        got, gradient = jax.value_and_grad(of)(value)
        np.testing.assert_allclose((got, gradient), (root, slope))
    assert np.isnan(of(jnp.nan))


def test_a_divergence_says_how_it_ended():
    d = jaxsns.sinkhorn_divergence(R.normal(size=(4, 2)), R.normal(size=(4, 2)))
    assert int(d.status) == Status.CONVERGED
    assert repr(d).splitlines()[0].endswith(", CONVERGED)")
    assert d.raise_if_failed() is d
    ended = lambda part, s: dataclasses.replace(part, status=jnp.int32(s))
    bad = dataclasses.replace(d, aa=ended(d.aa, Status.STALLED))
    assert int(bad.status) == Status.STALLED
    with pytest.raises(jaxsns.NotConvergedError, match="^aa, transport of a to itself"):
        bad.raise_if_failed()
    bad = dataclasses.replace(bad, bb=ended(d.bb, Status.NONFINITE))
    assert int(bad.status) == Status.NONFINITE
    assert repr(bad).splitlines()[0].endswith(", STALLED in aa; NONFINITE in bb)")
    assert not bad.converged
    lanes = jax.tree.map(lambda *v: jnp.stack(v), d, bad)
    np.testing.assert_array_equal(lanes.status, [Status.CONVERGED, Status.NONFINITE])
    assert "CONVERGED: 1, NONFINITE: 1" in repr(lanes).splitlines()[0]


def test_a_batch_is_sent_to_the_loss_for_batches():
    x = np.ones((2, 5, 3))
    for clouds in ((x, x), (x[0], x)):
        with pytest.raises(ValueError, match="transport_loss"):
            jaxsns.sinkhorn_divergence(*clouds)


# One row, one column, one key.


def _single(name, x, y):
    """Result with a gradient that is known: (function, argument, expected)."""
    loss = lambda out: _sum(out * jnp.arange(1, out.size + 1).reshape(out.shape))
    n = x.shape[0]
    v = jnp.asarray(R.normal(size=n), x.dtype)
    ramp = np.arange(1, 3)
    attention = lambda q, k: loss(jaxsns.transport_attention(q, k, k))
    return {
        "pooling, prototype": (lambda p: loss(jaxsns.transport_pooling(x, p)), y, 0),
        "pooling, features": (
            lambda x: loss(jaxsns.transport_pooling(x, y)),
            x,
            np.tile(ramp / n, (n, 1)),
        ),
        "one query": (lambda q: attention(q, x), y, 0),
        "one query, keys": (lambda k: attention(y, k), x, np.tile(ramp / n, (n, 1))),
        "one key, queries": (lambda q: attention(q, y), x, 0),
        "k = n": (lambda v: loss(jaxsns.soft_top_k(v, n)), v, 0),
        "k = 0": (lambda v: loss(jaxsns.soft_top_k(v, 0)), v, 0),
        "all of a quantile": (
            lambda v: loss(jaxsns.soft_quantile(v, 0.0, width=1.0)),
            v,
            1 / n,
        ),
        "map to one target": (
            lambda y: _sum(
                jaxsns.transport_map(jaxsns.solve(PointCloud(x, y), epsilon=0.3), x)
            ),
            y,
            n,
        ),
    }[name]


@each_dtype
@pytest.mark.parametrize(
    "name",
    [
        "pooling, prototype",
        "pooling, features",
        "one query",
        "one query, keys",
        "one key, queries",
        "k = n",
        "k = 0",
        "all of a quantile",
        "map to one target",
    ],
)
@jax.numpy_dtype_promotion("standard")
def test_gradients_with_one_row_or_column(name, dtype):
    x = jnp.asarray(R.normal(size=(7, 2)), dtype)
    y = jnp.asarray(R.normal(size=(1, 2)), dtype)
    function, at, expected = _single(name, x, y)
    gradient = jax.jit(jax.grad(function))(at)
    atol = 1e-4 if dtype == "f4" else 1e-8
    np.testing.assert_allclose(
        gradient, np.broadcast_to(expected, at.shape), rtol=0, atol=atol
    )


# Scales.


def _cases():
    """Geometries with two rows and a column of padding, and masses [n], [m]."""
    r = np.random.default_rng(3)
    x, y = jnp.asarray(r.normal(size=(9, 2))), jnp.asarray(r.normal(size=(6, 2)) + 5)
    x, y = x.at[7:].set(0), y.at[5:].set(0)
    a, b = np.where(np.arange(9) < 7, 1.0, 0), np.where(np.arange(6) < 5, 1.0, 0)
    cost = jnp.asarray(r.random((9, 6))).at[0, 0].set(jnp.inf).at[8].set(1e9)
    axes = jnp.asarray(r.random(3)), jnp.asarray(r.random(3))
    others = jnp.asarray(r.random(3) + 2), jnp.asarray(r.random(2) + 2)
    return {
        "Dense": Dense(cost),
        "stored": PointCloud(x, y, streamed=False),
        "distances": PointCloud(x, y, "euclidean", streamed=False),
        "streamed": PointCloud(x, y, streamed=True, block=4),
        "Grid": Grid(axes, others),
    }, a, b  # fmt: skip


def _numpy_scale(name, geometry, a, b):
    cost = np.asarray(geometry.dense().cost)[np.ix_(a > 0, b > 0)]
    if name != "within":
        return getattr(np, "nan" + name)(np.where(np.isinf(cost), np.nan, cost))
    if isinstance(geometry, Dense):
        rest = np.where(np.isinf(cost), np.nan, cost)
        rest = rest - np.nanmean(rest, axis=1, keepdims=True)
        return np.nanstd(rest - np.nanmean(rest, axis=0, keepdims=True))
    own = dataclasses.replace(geometry, y=geometry.x).dense().cost
    other = dataclasses.replace(geometry, x=geometry.y).dense().cost
    x, y = (
        np.asarray(own)[np.ix_(a > 0, a > 0)],
        np.asarray(other)[np.ix_(b > 0, b > 0)],
    )
    return (x.mean() + y.mean()) / 2


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize("kind", ["Dense", "stored", "distances", "streamed", "Grid"])
def test_a_scale_and_its_gradient_among_padding(kind, name):
    cases, a, b = _cases()
    geometry = cases[kind]
    if name == "median" and kind in ("streamed", "Grid"):
        with pytest.raises(ValueError, match="median"):
            statistic(name, geometry, a, b)
        return
    scale = lambda g: statistic(name, g, jnp.asarray(a), jnp.asarray(b))
    run = jax.jit(jax.value_and_grad(scale))
    value, gradient = run(geometry)
    np.testing.assert_allclose(value, _numpy_scale(name, geometry, a, b), rtol=1e-9)
    r, h = np.random.default_rng(4), 1e-6
    move = jax.tree.map(lambda v: jnp.asarray(r.normal(size=v.shape)), geometry)
    ends = [
        float(run(jax.tree.map(lambda v, d: v + t * d, geometry, move))[0])  # noqa: B023
        for t in (h, -h)
    ]
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(move), strict=True)
    slope = sum(float(jnp.sum(g * d)) for g, d in pairs)
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), atol=1e-7)


def test_within_does_not_see_how_far_apart_clouds_are():
    x, y = R.normal(size=(8, 2)), R.normal(size=(6, 2))
    cost = cdist(x, y, "sqeuclidean")
    offsets = 100 * R.random((8, 1)) + 100 * R.random((1, 6))
    within = lambda c: jaxsns.make_problem(c, epsilon=1.0, relative_to="within").epsilon
    np.testing.assert_allclose(within(cost), within(cost + offsets), rtol=1e-10)
    near, far = within(PointCloud(x, y)), within(PointCloud(x, y + 100))
    np.testing.assert_allclose(near, far, rtol=1e-12)
    np.testing.assert_allclose(near, x.var(0).sum() + y.var(0).sum(), rtol=1e-12)
    with pytest.raises(ValueError, match="needs coordinates"):
        within(Grid(matrices=(cost,)))


@pytest.mark.parametrize("relative", [{}, {"epsilon": 0.1, "relative_to": "within"}])
def test_penalties_among_padding_with_a_relative_epsilon(relative):
    x, y, along = R.normal(size=(3, 2, 6, 2))
    where = np.arange(6) < np.asarray([[4], [6]])

    @jax.jit
    @jax.value_and_grad
    def run(x):
        given = {"where": where, "where_targets": where, "tolerance": 1e-12}
        return _sum(jaxsns.transport_loss(x, y, rho=1.0, **given, **relative))

    gradient = run(x)[1]
    h = 1e-5
    difference = (run(x + h * along)[0] - run(x - h * along)[0]) / (2 * h)
    np.testing.assert_allclose(np.sum(gradient * along), difference, rtol=1e-6)


@each_dtype
def test_constant_images_have_a_loss(dtype):
    x = np.full((2, 6, 3), 0.3, dtype)
    y = x + np.asarray([0, 1], dtype)[:, None, None]
    run = jax.value_and_grad(lambda x: _sum(jaxsns.transport_loss(x, y)))
    value, gradient = jax.jit(run)(x)
    np.testing.assert_allclose(value, 3, rtol=1e-5)
    np.testing.assert_allclose(gradient[0], 0, atol=1e-5)
    np.testing.assert_allclose(gradient[1], -2 / 6, rtol=1e-4)


def test_equal_costs_have_a_scale():
    for name in SCALES:
        scale = lambda c: jaxsns.make_problem(  # noqa: B023
            c,
            epsilon=1.0,
            relative_to=name,  # noqa: B023
        ).epsilon
        np.testing.assert_allclose(scale(np.full((3, 4), 7.0)), 7, rtol=1e-12)
        np.testing.assert_allclose(scale(np.zeros((3, 4))), 1)
