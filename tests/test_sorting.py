"""Smooth sorting, ranking, top-k and quantiles against NumPy, closed forms and FD."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata

import jaxsns

N = 12
X = np.random.default_rng(0).normal(size=N)
HARD, SOFT = 1e-4, 1e6


def _standard(x):
    return (x - x.mean()) / x.std()


def _quantile(x, **kw):
    return jaxsns.soft_quantile(x, jnp.asarray([0.2, 0.5, 0.77]), **kw)


FUNCTIONS = {
    "sort": jaxsns.soft_sort,
    "rank": jaxsns.soft_rank,
    "top_k": lambda x, **kw: jaxsns.soft_top_k(x, 3, **kw),
    "quantile": _quantile,
}
HARD_RESULTS = {
    "sort": np.sort,
    "rank": lambda x: rankdata(x) - 1,
    "top_k": lambda x: (rankdata(x) > x.size - 3).astype(float),
    "quantile": lambda x: np.quantile(x, [0.2, 0.5, 0.77], method="hazen"),
}
MEANS = {
    "sort": lambda x: np.full(x.size, x.mean()),
    "rank": lambda x: np.full(x.size, (x.size - 1) / 2),
    "top_k": lambda x: np.full(x.size, 3 / x.size),
    "quantile": lambda x: np.full(3, x.mean()),
}
each = pytest.mark.parametrize("name", list(FUNCTIONS))


@each
def test_small_epsilon_is_the_hard_operator_and_large_the_mean(name):
    function = FUNCTIONS[name]
    hard = function(X, epsilon=HARD)
    np.testing.assert_allclose(hard, HARD_RESULTS[name](X), atol=1e-8)
    np.testing.assert_allclose(function(X, epsilon=SOFT), MEANS[name](X), atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.01, 0.3])
def test_sort_and_rank_are_what_a_numpy_solve_gives(epsilon):
    z, y = _standard(X), _standard(np.arange(N))
    a = np.full(N, 1 / N)
    cost = (z[:, None] - y[None]) ** 2
    plan = references.plan(cost, *references.sinkhorn(cost, a, a, epsilon), epsilon)
    got = jaxsns.soft_sort(X, epsilon=epsilon, tolerance=1e-13)
    np.testing.assert_allclose(got, N * plan.T @ X, atol=1e-11)
    got = jaxsns.soft_rank(X, epsilon=epsilon, tolerance=1e-13)
    np.testing.assert_allclose(got, N * plan @ np.arange(N), atol=1e-11)


@pytest.mark.parametrize("k", [0, 1, 5.5, N])
def test_top_k_is_a_sigmoid(k):
    epsilon, z = 0.2, _standard(X)
    sigmoid = lambda t: expit((2 * z - t) / epsilon)
    expected = np.full(N, k / N)
    if 0 < k < N:
        t = brentq(lambda t: sigmoid(t).sum() - k, -50, 50, xtol=1e-15)
        expected = sigmoid(t)
    got = jaxsns.soft_top_k(X, k, epsilon=epsilon, tolerance=1e-13)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(got), k, atol=1e-11)


def test_quantiles_interpolate_weigh_and_trim():
    levels = np.linspace(0, 1, 9)
    got = jaxsns.soft_quantile(X, levels, epsilon=HARD)
    expected = np.quantile(X, levels, method="hazen")
    np.testing.assert_allclose(got, expected, atol=1e-8)
    counts = np.resize([1.0, 3.0, 0.0, 2.0], N)
    repeated = np.repeat(X, counts.astype(int))
    got = jaxsns.soft_quantile(
        X, 0.4, epsilon=HARD, weights=counts, width=1 / repeated.size
    )
    expected = np.quantile(repeated, 0.4, method="hazen")
    np.testing.assert_allclose(got, expected, atol=1e-8)
    trimmed = jaxsns.soft_quantile(X, 0.5, epsilon=HARD, width=1 - 2 * 2 / N)
    np.testing.assert_allclose(trimmed, np.sort(X)[2:-2].mean(), atol=1e-8)


@each
def test_gradients_are_those_of_finite_differences(name):
    r = np.random.default_rng(1)
    kw = dict(epsilon=0.05, tolerance=1e-13)
    weights = jnp.asarray(r.normal(size=MEANS[name](X).shape))
    direction = r.normal(size=N)
    loss = lambda x: jnp.vdot(weights, FUNCTIONS[name](x, **kw))
    h = 1e-5
    reference = (loss(X + h * direction) - loss(X - h * direction)) / (2 * h)
    got = jnp.vdot(jax.grad(loss)(jnp.asarray(X)), jnp.asarray(direction))
    np.testing.assert_allclose(got, reference, rtol=1e-7)


def test_gradient_in_epsilon():
    loss = lambda e: jnp.sum(jaxsns.soft_sort(X, epsilon=e, tolerance=1e-13) ** 2)
    reference = (loss(0.05 + 1e-6) - loss(0.05 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(loss)(0.05), reference, rtol=1e-7)


@each
def test_epsilon_has_no_unit(name):
    function = FUNCTIONS[name]
    plain = function(X, epsilon=0.05)
    moved = function(1e6 * X + 3e6, epsilon=0.05)
    if name in ("sort", "quantile"):
        moved = (moved - 3e6) / 1e6
    np.testing.assert_allclose(moved, plain, atol=1e-9)


@each
@pytest.mark.parametrize("x", [np.full(N, 0.1), np.full(N, 1e300), np.zeros(N)])
def test_equal_values(name, x):
    function = FUNCTIONS[name]
    np.testing.assert_allclose(function(x), MEANS[name](x), rtol=1e-9)
    gradient = jax.grad(lambda x: jnp.sum(function(x)[:2]))(jnp.asarray(x))
    expected = {"sort": 2 / N, "quantile": 2 / N, "rank": 0, "top_k": 0}[name]
    np.testing.assert_allclose(gradient, expected, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e200])
def test_extreme_values(scale):
    got = jaxsns.soft_sort(scale * X, epsilon=HARD)
    np.testing.assert_allclose(got, scale * np.sort(X), rtol=1e-7)
    np.testing.assert_allclose(
        jaxsns.soft_rank(scale * X, epsilon=HARD), rankdata(X) - 1
    )


@each
def test_values_that_do_not_count(name):
    where = np.ones(N + 4, bool)
    where[[0, 3, 7, 15]] = False
    x = np.full(N + 4, np.nan)
    x[where] = X
    x[3], x[7] = np.inf, 1e300
    got = FUNCTIONS[name](x, epsilon=0.05, where=where)
    expected = FUNCTIONS[name](X, epsilon=0.05)
    if name == "sort":
        assert np.isnan(got[N:]).all()
        got = got[:N]
    if name in ("rank", "top_k"):
        rest = np.asarray(got)[~where]
        assert np.isnan(rest).all() if name == "rank" else (rest == 0).all()
        got = got[where]
    np.testing.assert_allclose(got, expected, atol=1e-9)
    masked = lambda x: FUNCTIONS[name](x, epsilon=0.05, where=where)
    gradient = jax.grad(lambda x: jnp.nansum(masked(x) ** 2))(jnp.asarray(x))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~where] == 0).all()


@each
def test_axis_and_vmap_are_one_row_at_a_time(name):
    x = np.random.default_rng(2).normal(size=(2, N, 3))
    function = lambda x, **kw: FUNCTIONS[name](x, epsilon=0.1, **kw)
    got = function(x, axis=1)
    lanes = jax.vmap(jax.vmap(function, in_axes=1), in_axes=0)(x)
    for i in range(2):
        for j in range(3):
            one = function(x[i, :, j])
            own = got[:, i, j] if name == "quantile" else got[i, :, j]
            np.testing.assert_allclose(own, one, atol=1e-9)
            np.testing.assert_allclose(lanes[i, j], one, atol=1e-9)


def test_returns_the_solution_of_every_row():
    x = np.random.default_rng(3).normal(size=(2, N))
    out, solution = jaxsns.soft_sort(x.T, axis=0, return_solution=True)
    assert out.shape == (N, 2)
    assert solution.f.shape == (2, N)
    assert bool(jnp.all(solution.converged))
    levels = jnp.asarray([0.1, 0.5, 0.9])
    out, solution = jaxsns.soft_quantile(x, levels, return_solution=True)
    assert out.shape == solution.status.shape[::-1] == (3, 2)


@each
def test_a_solve_that_fails_gives_nan(name):
    kw = dict(epsilon=1e-3, tolerance=1e-30)
    out = FUNCTIONS[name](X, **kw)
    assert np.isnan(out).all()
    gradient = jax.grad(lambda x: jnp.sum(FUNCTIONS[name](x, **kw)))(jnp.asarray(X))
    assert np.isnan(gradient).all()


@each
def test_bad_traced_values_give_nan(name):
    function = FUNCTIONS[name]
    assert np.isnan(jax.jit(function)(np.where(np.arange(N) == 2, np.nan, X))).all()
    assert np.isnan(jax.jit(function)(np.where(np.arange(N) == 2, np.inf, X))).all()
    assert np.isnan(jax.jit(lambda e: function(X, epsilon=e))(-1.0)).all()
    nothing = jax.jit(lambda w: function(X, where=w))(np.zeros(N, bool))
    assert np.isnan(nothing).all()


@pytest.mark.parametrize("k", [-1.0, N + 1.0, np.nan])
def test_bad_traced_numbers_give_nan(k):
    assert np.isnan(jax.jit(lambda k: jaxsns.soft_top_k(X, k))(k)).all()
    assert np.isnan(jax.jit(lambda q: jaxsns.soft_quantile(X, q))(k))
    width = jax.jit(lambda w: jaxsns.soft_quantile(X, 0.5, width=w))
    assert np.isnan(width(k))
    assert np.isnan(width(0.0))
    weights = jax.jit(lambda w: jaxsns.soft_quantile(X, 0.5, weights=w))
    assert k > 0 or np.isnan(weights(np.where(np.arange(N) == 1, k, 1.0)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: jaxsns.soft_sort(1.0), ValueError, "values must have an axis"),
        (lambda: jaxsns.soft_sort(X > 0), TypeError, "values must hold real"),
        (lambda: jaxsns.soft_sort([1, np.nan]), ValueError, "values must be finite"),
        (lambda: jaxsns.soft_rank(X, axis=1), ValueError, "axis must be an axis"),
        (lambda: jaxsns.soft_rank(X, epsilon=0.0), ValueError, "epsilon must be pos"),
        (lambda: jaxsns.soft_rank(X, tolerance=-1), ValueError, "tolerance must be"),
        (lambda: jaxsns.soft_sort(X, where=X), TypeError, "where must be boolean"),
        (lambda: jaxsns.soft_sort(X, where=X[1:] > 0), ValueError, "where must have"),
        (lambda: jaxsns.soft_sort(X, where=X > 99), ValueError, "where must leave"),
        (lambda: jaxsns.soft_top_k(X, N + 1), ValueError, "k must be from 0"),
        (lambda: jaxsns.soft_top_k(X, [1]), ValueError, "k must be a scalar"),
        (lambda: jaxsns.soft_quantile(X, 1.5), ValueError, "q must be from 0"),
        (lambda: jaxsns.soft_quantile(X, [[0.5]]), ValueError, r"q must have shape"),
        (lambda: jaxsns.soft_quantile(X, 0.5, width=0), ValueError, "width must be"),
        (
            lambda: jaxsns.soft_quantile(X, 0.5, weights=-np.ones(N)),
            ValueError,
            "weights must be finite, >= 0",
        ),
        (
            lambda: jaxsns.soft_quantile(X, 0.5, weights=np.ones(3)),
            ValueError,
            "weights must have the shape",
        ),
    ],
)
def test_bad_arguments_raise_with_their_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


@each
def test_float32(name):
    x = X.astype(np.float32)
    got = FUNCTIONS[name](x, epsilon=np.float32(0.05))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, FUNCTIONS[name](X, epsilon=0.05), atol=1e-4)


def test_numbers_are_data():
    traces = []

    @jax.jit
    def function(x, epsilon, k, q):
        traces.append(1)
        rest = jaxsns.soft_quantile(x, q, epsilon=epsilon)
        return jaxsns.soft_top_k(x, k, epsilon=epsilon), rest

    for epsilon, k, q in ((0.1, 2, 0.3), (0.01, 5, 0.9)):
        mask, quantile = function(X, epsilon, k, q)
        np.testing.assert_allclose(jnp.sum(mask), k, atol=1e-8)
        assert np.isfinite(quantile)
    assert len(traces) == 1
