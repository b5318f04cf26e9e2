"""Smooth sorting, ranking, top-k and quantiles against NumPy, closed forms and FD."""

import functools

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
HARD, SOFT = 1e-4, 1e8


def _standard(x):
    return (x - x.mean()) / x.std()


LEVELS = np.asarray([0.2, 0.5, 0.77])
FUNCTIONS = {
    "sort": jaxsns.soft_sort,
    "rank": jaxsns.soft_rank,
    "top_k": lambda x, k=3, **kw: jaxsns.soft_top_k(x, k, **kw),
    "quantile": lambda x, q=LEVELS, **kw: jaxsns.soft_quantile(x, q, **kw),
}
HARD_RESULTS = {
    "sort": np.sort,
    "rank": lambda x: rankdata(x) - 1,
    "top_k": lambda x: (rankdata(x) > x.size - 3).astype(float),
    "quantile": lambda x: np.quantile(x, LEVELS, method="hazen"),
}
MEANS = {
    "sort": lambda x: np.full(x.size, x.mean()),
    "rank": lambda x: np.full(x.size, (x.size - 1) / 2),
    "top_k": lambda x: np.full(x.size, 3 / x.size),
    "quantile": lambda x: np.full(3, x.mean()),
}
each = pytest.mark.parametrize("name", list(FUNCTIONS))


@functools.cache
def _compiled(name):
    """One program a function for all tests: values and Jacobians, all input traced."""

    def run(x, epsilon, kw):
        function = lambda x, e: FUNCTIONS[name](x, epsilon=e, **kw)
        value, pull = jax.vjp(function, x, epsilon)
        return value, *jax.vmap(pull)(jnp.eye(value.size))

    return jax.jit(run)


def _run(name, x=X, epsilon=0.05, tolerance=1e-10, where=None, **kw):
    """([k] values, [k, N] derivatives in x, [k] in epsilon)."""
    where = np.ones(N, bool) if where is None else where
    if name == "top_k":
        kw = dict(k=3.0) | kw
    if name == "quantile":
        width = 1 / max(int(where.sum()), 1)
        kw = dict(q=LEVELS, width=width, weights=np.ones(N)) | kw
    kw |= dict(tolerance=tolerance, where=where)
    return _compiled(name)(x, epsilon, kw)


@each
def test_small_epsilon_is_the_hard_operator_and_large_the_mean(name):
    np.testing.assert_allclose(
        _run(name, X, HARD)[0], HARD_RESULTS[name](X), rtol=0, atol=1e-10
    )
    np.testing.assert_allclose(
        _run(name, X, SOFT)[0], MEANS[name](X), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_sort_and_rank_are_what_a_numpy_solve_gives(epsilon):
    z, y = _standard(X), _standard(np.arange(N))
    a = np.full(N, 1 / N)
    cost = (z[:, None] - y[None]) ** 2
    potentials = references.sinkhorn(cost, a, a, epsilon, tolerance=1e-13)
    plan = references.plan(cost, *potentials, epsilon)
    got = _run("sort", X, epsilon, 1e-13)[0]
    np.testing.assert_allclose(got, N * plan.T @ X, rtol=0, atol=1e-11)
    got = _run("rank", X, epsilon, 1e-13)[0]
    np.testing.assert_allclose(got, N * plan @ np.arange(N), rtol=0, atol=1e-11)


@pytest.mark.parametrize("k", [0.0, 1.0, 5.5, float(N)])
def test_top_k_is_a_sigmoid(k):
    epsilon, z = 0.2, _standard(X)
    sigmoid = lambda t: expit((2 * z - t) / epsilon)
    expected = np.full(N, k / N)
    if 0 < k < N:
        t = brentq(lambda t: sigmoid(t).sum() - k, -50, 50, xtol=1e-15)
        expected = sigmoid(t)
    got = _run("top_k", X, epsilon, 1e-13, k=k)[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(jnp.sum(got), k, rtol=0, atol=1e-11)


def test_quantiles_interpolate_weigh_and_trim():
    call = lambda **kw: _run("quantile", X, HARD, **kw)[0]
    for levels in np.linspace(0, 1, 9).reshape(3, 3):
        expected = np.quantile(X, levels, method="hazen")
        np.testing.assert_allclose(call(q=levels), expected, rtol=0, atol=1e-11)
    counts = np.resize([1.0, 3.0, 0.0, 2.0], N)
    repeated = np.repeat(X, counts.astype(int))
    expected = np.quantile(repeated, LEVELS, method="hazen")
    got = call(weights=counts, width=1 / repeated.size)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)
    trimmed = call(width=1 - 2 * 2 / N)[1]
    np.testing.assert_allclose(trimmed, np.sort(X)[2:-2].mean(), rtol=0, atol=1e-11)


@each
def test_derivatives_are_those_of_finite_differences(name):
    direction = np.random.default_rng(1).normal(size=N)
    h = 1e-5
    _, in_x, in_epsilon = _run(name, X, 0.05, 1e-13)
    up, down = (_run(name, X + t * direction, 0.05, 1e-13)[0] for t in (h, -h))
    np.testing.assert_allclose(
        in_x @ direction, (up - down) / (2 * h), rtol=0, atol=5e-7
    )
    h = 1e-6
    up, down = (_run(name, X, 0.05 + t, 1e-13)[0] for t in (h, -h))
    np.testing.assert_allclose(in_epsilon, (up - down) / (2 * h), rtol=0, atol=1e-7)


@each
def test_epsilon_has_no_unit(name):
    plain = _run(name)[0]
    moved = _run(name, 1e6 * X + 3e6)[0]
    if name in ("sort", "quantile"):
        moved = (moved - 3e6) / 1e6
    np.testing.assert_allclose(moved, plain, rtol=0, atol=1e-9)


@each
@pytest.mark.parametrize("x", [np.full(N, 0.1), np.full(N, 1e300), np.zeros(N)])
def test_equal_values(name, x):
    value, jacobian, _ = _run(name, x)
    np.testing.assert_allclose(value, MEANS[name](x), rtol=1e-12)
    expected = 1 / N if name in ("sort", "quantile") else 0
    np.testing.assert_allclose(jacobian, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e200])
def test_extreme_values(scale):
    got = _run("sort", scale * X, HARD)[0]
    np.testing.assert_allclose(got, scale * np.sort(X), rtol=1e-7)
    got = _run("rank", scale * X, HARD)[0]
    np.testing.assert_allclose(got, rankdata(X) - 1, rtol=0, atol=1e-7)


@each
def test_values_that_do_not_count(name):
    where = np.ones(N, bool)
    where[[0, 3, 7, 11]] = False
    x = np.where(where, X, np.nan)
    x[3], x[7] = np.inf, 1e300
    got, jacobian, _ = _run(name, x, HARD, where=where)
    if name == "sort":
        assert np.isnan(got[8:]).all()
        got = got[:8]
    if name in ("rank", "top_k"):
        rest = np.asarray(got)[~where]
        assert np.isnan(rest).all() if name == "rank" else (rest == 0).all()
        got = got[where]
    np.testing.assert_allclose(got, HARD_RESULTS[name](X[where]), rtol=0, atol=1e-9)
    assert np.isfinite(jacobian).all()
    assert (np.asarray(jacobian)[:, ~where] == 0).all()


@pytest.mark.parametrize(("name", "dtype"), [("rank", "f4"), ("quantile", "f8")])
def test_axis_is_one_row_at_a_time_with_its_solution(name, dtype):
    x = np.random.default_rng(2).normal(size=(2, N, 3))
    got, solution = FUNCTIONS[name](
        x.astype(dtype), epsilon=0.1, axis=1, return_solution=True
    )
    assert got.dtype == dtype
    assert bool(jnp.all(solution.converged))
    assert solution.status.shape == ((2, 3, 3) if name == "quantile" else (2, 3))
    assert solution.f.shape[-1] == N
    atol = 1e-9 if dtype == "f8" else 5e-5
    for i in range(2):
        for j in range(3):
            own = got[:, i, j] if name == "quantile" else got[i, :, j]
            np.testing.assert_allclose(
                own, _run(name, x[i, :, j], 0.1)[0], rtol=0, atol=atol
            )


@each
def test_a_solve_that_stalls_at_the_floor_of_the_dtype_gives_its_number(name):
    kept, good = _run(name, X, 0.05, 1e-30), _run(name, X, 0.05, 1e-13)
    for x, y in zip(kept, good, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-9)


@each
def test_a_solve_that_fails_gives_nan(name):
    value, jacobian, _ = _run(name, X, 1e-15, 1e-30)
    assert np.isnan(value).all()
    assert np.isnan(jacobian).all()


@each
def test_bad_traced_values_give_nan(name):
    for bad in (np.nan, np.inf):
        assert np.isnan(_run(name, np.where(np.arange(N) == 2, bad, X))[0]).all()
    assert np.isnan(_run(name, epsilon=-1.0)[0]).all()
    assert np.isnan(_run(name, where=np.zeros(N, bool))[0]).all()


def test_bad_traced_numbers_give_nan():
    for bad in (-1.0, N + 1.0, np.nan):
        assert np.isnan(_run("top_k", k=bad)[0]).all()
        assert np.isnan(_run("quantile", q=np.full(3, bad))[0]).all()
        assert np.isnan(_run("quantile", width=bad)[0]).all()
    assert np.isnan(_run("quantile", width=0.0)[0]).all()
    for bad in (-1.0, np.nan, np.inf):
        weights = np.where(np.arange(N) == 1, bad, 1.0)
        assert np.isnan(_run("quantile", weights=weights)[0]).all()


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


def test_numbers_are_data():
    for name in FUNCTIONS:
        _run(name)
        size = _compiled(name)._cache_size()
        _run(name, 2 * X, 0.2, 1e-6)
        assert _compiled(name)._cache_size() == size == 1
