"""Gaussian transport against SciPy, closed forms and finite differences."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxsns import Status, gaussian
from jaxsns.gaussian.matrix_sqrt import lyapunov, sqrtm

# The name of the package is that of the function.
_ITERATION = importlib.import_module("jaxsns.gaussian.barycentre")

R = np.random.default_rng(0)
EYE = np.eye(4)


def _definite(d=4, count=()):
    x = R.normal(size=(*count, d, 2 * d))
    return x @ np.swapaxes(x, -1, -2) / d


def _rotated(*values):
    """Matrices with these rows of eigenvalues and common eigenvectors."""
    q = np.linalg.qr(R.normal(size=(len(values[0]),) * 2))[0]
    return q, [(q * np.asarray(v)) @ q.T for v in values]


def _symmetric(d=4):
    x = R.normal(size=(d, d))
    return x + x.T


A, B, M = _definite(), _definite(), _definite()
X = _definite(count=(3,))
W = np.array([0.2, 0.3, 0.5])
V, U = _symmetric(), _symmetric()


def _root(a):
    return scipy.linalg.sqrtm(a).real


def _scipy_map(a, b):
    r = _root(a)
    inverse = np.linalg.inv(r)
    return inverse @ _root(r @ b @ r) @ inverse


def _scipy_bures(a, b):
    r = _root(a)
    return np.trace(a + b - 2 * _root(r @ b @ r))


def _whitened(*matrices):
    inverse = np.linalg.inv(_root(M))
    return [inverse @ a @ inverse for a in matrices]


def _check_derivatives(f, rtol=1e-8):
    """Compare derivatives of f(t), a vector, with differences; one compilation."""

    def kept(mode, function):  # the derivative, and the value beside it
        return mode(lambda t: (lambda v: (v[0], v))(function(t)), has_aux=True)

    @jax.jit
    def at(t):
        value = lambda t: (f(t),)
        one, (forward, (found,)) = kept(jax.jacrev, kept(jax.jacfwd, value))(t)
        other, (reverse, _) = kept(jax.jacfwd, kept(jax.jacrev, value))(t)
        return found, forward, reverse, one, other

    h = 2e-4
    near, far = [[at(s * k * h) for s in (-1, 1)] for k in (1, 2)]
    got = at(0.0)
    for order, kinds in ((0, (1, 2)), (1, (3, 4))):
        # Central differences of fourth order.
        slopes = [(right[order] - left[order]) / (2 * h) for left, right in (near, far)]
        expected = (4 * slopes[0] - slopes[1] / 2) / 3
        scale = np.abs(expected).max()
        for kind in kinds:
            np.testing.assert_allclose(got[kind], expected, atol=rtol * scale)


# Square root and Lyapunov equation.


@pytest.mark.parametrize("d", [1, 2, 7, 30])
def test_root_matches_scipy(d):
    a = _definite(d)
    np.testing.assert_allclose(sqrtm(jnp.asarray(a)), _root(a), atol=2e-14 * d)


def test_root_takes_leading_dimensions_and_solves_lyapunov():
    roots = sqrtm(jnp.asarray(X))
    np.testing.assert_allclose(roots @ roots, X, rtol=1e-13)
    c = np.stack([V, U, V])
    expected = [
        scipy.linalg.solve_sylvester(x, x, y) for x, y in zip(X, c, strict=True)
    ]
    np.testing.assert_allclose(lyapunov(X, jnp.asarray(c)), expected, atol=1e-13)


def test_root_and_lyapunov_derivatives_match_finite_differences():
    weight = jnp.asarray(U)

    def f(t):
        a = jnp.asarray(A) + t * V
        sums = [weight * sqrtm(a), weight * lyapunov(a, jnp.sin(t) * M + B)]
        return jnp.sum(jnp.stack(sums), axis=(1, 2))

    _check_derivatives(f)


def test_root_derivatives_at_equal_eigenvalues():
    # (1 + x)^1/2 = 1 + x/2 - x^2/8 + x^3/16, for a matrix x as well.
    f = lambda t: jnp.sum(jnp.asarray(U) * sqrtm(jnp.asarray(EYE) + t * V))
    first = jax.grad(f)
    second, third = jax.jit(jax.grad(first)), jax.jit(jax.grad(jax.grad(first)))
    np.testing.assert_allclose(first(0.0), np.sum(U * V) / 2, rtol=1e-14)
    np.testing.assert_allclose(second(0.0), -np.sum(U * (V @ V)) / 4, rtol=1e-13)
    np.testing.assert_allclose(third(0.0), np.sum(U * (V @ V @ V)) * 3 / 8, rtol=1e-13)


def test_root_derivative_at_tiny_eigenvalues_is_the_divided_difference():
    values = np.array([1.0, 1.0, 1e-12, 1e-12])
    q, (a,) = _rotated(values)
    roots = np.sqrt(values)
    expected = q @ ((q.T @ V @ q) / (roots[:, None] + roots)) @ q.T
    _, got = jax.jvp(sqrtm, (jnp.asarray(a),), (jnp.asarray(V),))
    # The eigenvalue itself is known to 1e-16, so its root to 1e-4 of itself.
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_root_derivative_is_bounded_at_zero_eigenvalues(rank):
    values = np.where(np.arange(4) < rank, 2.0, 0.0)
    q, (a,) = _rotated(values)
    f = lambda a: jnp.sum(jnp.asarray(U) * sqrtm(a))
    gradient = jax.grad(f)(jnp.asarray(a))
    # Between range and kernel 1 / s_i, in the range 1 / 2 s_i, in the kernel 0.
    sums = np.sqrt(values)[:, None] + np.sqrt(values)
    factor = np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)
    expected = q @ ((q.T @ U @ q) * factor) @ q.T
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert np.all(np.isfinite(jax.jit(jax.hessian(f))(jnp.asarray(a))))


def test_root_of_bad_matrices_is_nan():
    for bad in (-EYE, EYE * np.nan, np.diag([1.0, 1.0, 1.0, -1e-6])):
        assert np.all(np.isnan(jax.jit(sqrtm)(jnp.asarray(bad))))
    rounding = np.diag([1.0, 1.0, 1.0, -1e-15])
    assert np.all(np.isfinite(sqrtm(jnp.asarray(rounding))))


# Distance, map, geodesic, logarithm.


def test_distance_and_map_match_scipy():
    np.testing.assert_allclose(gaussian.bures(A, B), _scipy_bures(A, B), rtol=1e-13)
    t = gaussian.optimal_map(A, B)
    np.testing.assert_allclose(t, _scipy_map(A, B), atol=1e-13)
    np.testing.assert_allclose(t @ A @ t, B, atol=1e-13)
    m, n = R.normal(size=4), R.normal(size=4)
    got = gaussian.squared_distance(m, A, n, B)
    np.testing.assert_allclose(got, np.sum((m - n) ** 2) + _scipy_bures(A, B))
    matrix, offset = gaussian.affine_map(m, A, n, B)
    np.testing.assert_allclose(matrix @ m + offset, n, atol=1e-13)


def test_generalised_metric_matches_whitening_with_the_root():
    a, b, v = _whitened(A, B, V)
    root, inverse = _root(M), np.linalg.inv(_root(M))
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12)
    close(gaussian.bures(A, B, metric=M), _scipy_bures(a, b))
    t = gaussian.optimal_map(A, B, metric=M)
    close(t, root @ _scipy_map(a, b) @ inverse)
    close(t @ A @ t.T, B)
    for function, first, second in (
        (gaussian.logarithm, (A, B), (a, b)),
        (gaussian.exponential, (A, 0.1 * V), (a, 0.1 * v)),
        (lambda *x, **k: gaussian.geodesic(*x, 0.3, **k), (A, B), (a, b)),
        (lambda *x, **k: gaussian.barycentre(np.stack(x), **k).matrix, (A, B), (a, b)),
    ):
        close(function(*first, metric=M), root @ function(*second) @ root)
    m, n = R.normal(size=4), R.normal(size=4)
    got = gaussian.squared_distance(m, A, n, B, metric=M)
    close(got, np.sum((inverse @ (m - n)) ** 2) + _scipy_bures(a, b))
    # M = 4 I halves lengths.
    close(gaussian.bures(A, B, metric=4 * EYE), gaussian.bures(A, B) / 4)


def test_one_dimension_and_commuting_matrices():
    one = lambda x: np.array([[x]])
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-13, atol=1e-14)
    close(gaussian.squared_distance([1.0], one(4.0), [3.0], one(9.0)), 4 + 1)
    close(gaussian.optimal_map(one(4.0), one(9.0)), one(1.5))
    close(gaussian.geodesic(one(4.0), one(9.0), 0.5), one(6.25))
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 1.0])
    q, (ca, cb) = _rotated(a, b)
    close(gaussian.bures(ca, cb), np.sum((np.sqrt(a) - np.sqrt(b)) ** 2))
    close(gaussian.optimal_map(ca, cb), q @ np.diag([3.0, 1.0, 0.0]) @ q.T)
    middle = ((np.sqrt(a) + np.sqrt(b)) / 2) ** 2
    middle[2] = 0.25  # all of that variance is new: t^2 b
    close(gaussian.geodesic(ca, cb, 0.5), q @ np.diag(middle) @ q.T)


def test_a_number_of_python_takes_the_dtype_of_the_covariances():
    a, b = A.astype(np.float32), B.astype(np.float32)
    assert gaussian.geodesic(a, b, 0.25).dtype == np.float32


def test_geodesic_has_constant_speed_and_logarithm_inverts_exponential():
    whole = gaussian.bures(A, B)
    for t in (0.0, 0.25, 0.5, 1.0):
        point = gaussian.geodesic(A, B, t)
        np.testing.assert_allclose(
            gaussian.bures(A, point), t**2 * whole, rtol=1e-12, atol=1e-24
        )
    tangent = gaussian.logarithm(A, B)
    np.testing.assert_allclose(gaussian.exponential(A, tangent), B, atol=1e-13)
    np.testing.assert_allclose(
        gaussian.exponential(A, 0.25 * tangent),
        gaussian.geodesic(A, B, 0.25),
        atol=1e-13,
    )
    length = jnp.sum(lyapunov(jnp.asarray(A), tangent) * tangent) / 2
    np.testing.assert_allclose(length, whole, rtol=1e-13)


@pytest.mark.parametrize("metric", [None, M])
def test_derivatives_match_finite_differences(metric):
    weight = jnp.asarray(U)

    def f(t):
        a, b = jnp.asarray(A) + t * V, jnp.asarray(B) + jnp.sin(t) * U
        rest = {} if metric is None else {"metric": metric + t * (V @ V)}
        matrices = (
            gaussian.optimal_map(a, b, **rest),
            gaussian.geodesic(a, b, 0.3 + t, **rest),
            gaussian.logarithm(a, b, **rest),
            gaussian.exponential(a, b, **rest),
        )
        values = [jnp.sum(weight * x) for x in matrices]
        return jnp.stack([gaussian.bures(a, b, **rest), *values])

    _check_derivatives(f)


def test_distance_is_zero_with_zero_gradient_at_equality():
    q, (tiny,) = _rotated([1.0, 1.0, 1e-3, 1e-12])
    for a, zero, flat in ((A, 1e-28, 1e-14), (EYE, 1e-28, 1e-14), (tiny, 1e-28, 1e-3)):
        value, gradient = jax.value_and_grad(gaussian.bures)(jnp.asarray(a), a)
        assert 0 <= float(value) < zero
        # A tiny eigenvalue is known to 1e-4 of itself, and so is the map.
        np.testing.assert_allclose(gradient, 0, atol=flat)
    second = jax.jit(jax.grad(jax.grad(lambda t, a: gaussian.bures(a + t * V, a))))
    for a in (A, EYE):
        expected = np.sum(scipy.linalg.solve_sylvester(a, a, V) * V)
        np.testing.assert_allclose(second(0.0, a), expected, rtol=1e-12)
    # No cancellation: a change of 1e-9 has a squared distance of 1e-18.
    got = gaussian.bures(A, A + 1e-9 * V)
    expected = 1e-18 * np.sum(scipy.linalg.solve_sylvester(A, A, V) * V) / 2
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_derivatives_at_tiny_and_zero_eigenvalues():
    q, (a, b) = _rotated([1.0, 1.0, 1e-12, 1e-12], [4.0, 1.0, 4e-12, 1.0])
    slope = q.T @ jax.grad(gaussian.bures)(jnp.asarray(a), b) @ q
    expected = np.diag(1 - np.sqrt([4.0, 1.0, 4.0, 1e12]))
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=100)
    q, (a, b) = _rotated([1.0, 4.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0])
    for which in (0, 1):
        gradient = jax.grad(gaussian.bures, which)(jnp.asarray(a), jnp.asarray(b))
        expected = [0, 0.5, 1, 1] if which == 0 else [0, -1, 1, 1]
        np.testing.assert_allclose(q.T @ gradient @ q, np.diag(expected), atol=1e-7)
        f = jax.jit(jax.hessian(gaussian.bures, which))
        assert np.all(np.isfinite(f(jnp.asarray(a), jnp.asarray(b))))


def test_float32_and_scale():
    f = jax.jit(jax.value_and_grad(gaussian.bures))
    single = lambda x: jnp.asarray(x, jnp.float32)
    value, slope = f(single(A), single(B))
    assert value.dtype == slope.dtype == jnp.float32
    np.testing.assert_allclose(value, _scipy_bures(A, B), rtol=2e-6)
    np.testing.assert_allclose(slope, EYE - _scipy_map(A, B), atol=2e-5)
    for scale in (1e-12, 1e12):
        v, g = f(single(scale * A), single(scale * B))
        np.testing.assert_allclose(v / scale, value, rtol=1e-5)
        np.testing.assert_allclose(g, slope, atol=2e-5)


# Barycentre.


def _fixed_point(s, covs, weights):
    return sum(w * _scipy_map(s, x) for w, x in zip(weights, covs, strict=True))


@pytest.mark.parametrize("d", [1, 3, 20])
def test_barycentre_solves_the_fixed_point_equation(d):
    covs = _definite(d, (3,))
    end = gaussian.barycentre(covs, W)
    assert int(end.status) == Status.CONVERGED
    assert bool(end.converged)
    assert float(end.residual) <= 1e-12
    np.testing.assert_allclose(_fixed_point(end.matrix, covs, W), np.eye(d), atol=1e-11)
    np.testing.assert_allclose(end.matrix, end.matrix.T, atol=0)


def test_barycentre_of_commuting_matrices_and_of_two():
    values = np.array([[1.0, 4.0, 1e-12], [9.0, 1.0, 4e-12], [4.0, 4.0, 0.0]])
    q, covs = _rotated(*values)
    end = gaussian.barycentre(np.stack(covs), 7 * W)
    expected = (q * (W @ np.sqrt(values)) ** 2) @ q.T
    np.testing.assert_allclose(end.matrix, expected, atol=1e-12)
    end = gaussian.barycentre(np.stack([A, B]), [0.7, 0.3])
    np.testing.assert_allclose(end.matrix, gaussian.geodesic(A, B, 0.3), atol=1e-11)
    equal = gaussian.barycentre(np.stack([A, A]))
    np.testing.assert_allclose(equal.matrix, A, atol=1e-13)


def test_barycentre_derivatives_match_finite_differences():
    changes = np.stack([V, U, V @ V])

    def f(t):
        end = gaussian.barycentre(
            jnp.asarray(X) + t * changes,
            jnp.asarray(W) + t * jnp.asarray([1.0, -2.0, 3.0]),
            metric=jnp.asarray(M) + t * U,
            tolerance=1e-14,
        )
        return jnp.ravel(end.matrix)

    _check_derivatives(f)


def test_barycentre_derivative_in_closed_form_at_equal_eigenvalues():
    covs = jnp.asarray(np.stack([EYE, 4 * EYE, 9 * EYE]))
    f = lambda w: jnp.trace(gaussian.barycentre(covs, w).matrix) / 4
    root = W @ [1, 2, 3]  # with weights divided by their total
    expected = 2 * root * (np.array([1, 2, 3]) - root)
    for mode in (jax.grad, jax.jacfwd):
        got = jax.jit(mode(f))(jnp.asarray(W))
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    along = lambda t: gaussian.barycentre(covs + t * V[None], W).matrix
    change = jax.jit(lambda t: jnp.trace(along(t) @ U))
    expected = sum(w * root / k for w, k in zip(W, (1, 2, 3), strict=True))
    np.testing.assert_allclose(jax.grad(change)(0.0), expected * np.sum(U * V))


def test_barycentre_derivative_of_ill_conditioned_matrices():
    spread = np.diag([1.0, 1e-2, 1e-4, 1e-6])
    half = np.sqrt(spread)
    covs = half @ X @ half
    f = jax.jit(lambda x: jnp.log(gaussian.barycentre(x, W).matrix[3, 3]))
    change = half @ V @ half
    slope = jnp.sum(jax.grad(f)(jnp.asarray(covs)) * change[None])
    h = 1e-5
    expected = (f(covs + h * change[None]) - f(covs - h * change[None])) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-6)


def test_barycentre_under_vmap_has_a_status_a_lane():
    batch = np.stack([X, X, -X, X * np.nan, X])
    weights = np.stack([W, W, W, W, -W])
    tolerance = np.array([1e-12, 1e-30, 1e-12, 1e-12, 1e-12])
    run = jax.jit(
        jax.vmap(lambda x, w, t: gaussian.barycentre(x, w, tolerance=t, max_steps=99))
    )
    end = run(batch, weights, tolerance)
    names = [Status(int(s)).name for s in end.status]
    bad = "INVALID_INPUT"
    assert names == ["CONVERGED", "MAX_STEPS", bad, bad, bad]
    alone = gaussian.barycentre(X, W)
    np.testing.assert_allclose(end.matrix[0], alone.matrix, atol=1e-13)
    np.testing.assert_allclose(end.matrix[1], alone.matrix, atol=1e-11)
    assert np.all(np.isnan(end.matrix[2:]))
    short = gaussian.barycentre(X, W, max_steps=2)
    assert (int(short.steps), int(short.status)) == (2, Status.MAX_STEPS)


def test_barycentre_at_any_scale():
    unit = gaussian.barycentre(X, W)
    for scale in (1e-305, 1e305):
        end = gaussian.barycentre(scale * X, W)
        assert bool(end.converged)
        assert int(end.steps) == int(unit.steps)
        np.testing.assert_allclose(end.matrix / scale, unit.matrix, rtol=1e-12)
    # An overflow on the way back: the metric takes the matrices to 1e310.
    large = 1e200 * X
    overflow = jax.jit(lambda m: gaussian.barycentre(large, W, metric=m))(1e-110 * EYE)
    assert int(overflow.status) == Status.NONFINITE
    assert np.all(np.isnan(overflow.matrix))


def test_barycentre_tolerance_and_limit_are_data():
    before = _ITERATION._run._cache_size()
    for tolerance, limit in ((1e-3, 10), (1e-6, 20), (1e-9, 30)):
        gaussian.barycentre(_definite(5, (2,)), tolerance=tolerance, max_steps=limit)
    assert _ITERATION._run._cache_size() == before + 1


def test_barycentre_in_float32():
    end = gaussian.barycentre(X.astype(np.float32), W.astype(np.float32))
    assert bool(end.converged)
    assert end.matrix.dtype == jnp.float32
    np.testing.assert_allclose(end.matrix, gaussian.barycentre(X, W).matrix, atol=2e-5)


# Failures.

TILTED = A + np.triu(np.ones((4, 4)), 1)
BAD = {
    "rank": (lambda: gaussian.bures(A[0], B), r"cov_a must have shape \[d, d\]"),
    "square": (lambda: gaussian.bures(A[:2], B), r"cov_a .* got \(2, 4\)"),
    "size": (
        lambda: gaussian.optimal_map(A, B[:3, :3]),
        r"cov_b must have shape \[d, d\] = \[4, 4\], not empty; got \(3, 3\)",
    ),
    "empty": (lambda: gaussian.bures(A[:0, :0], A[:0, :0]), "cov_a .* not empty"),
    "mean shape": (
        lambda: gaussian.squared_distance(A[0, :2], A, A[0], B),
        r"cov_a must have shape \[d, d\] = \[2, 2\]",
    ),
    "time": (lambda: gaussian.geodesic(A, B, [0.5]), r"t must have shape \[\]"),
    "one matrix": (lambda: gaussian.barycentre(A), r"covs must have shape \[K, d, d\]"),
    "weights shape": (lambda: gaussian.barycentre(X, W[:2]), r"weights .* \[3\]"),
    "metric shape": (
        lambda: gaussian.bures(A, B, metric=1.0),
        r"metric must have shape",
    ),
    "nan": (lambda: gaussian.bures(A * np.nan, B), "cov_a must be finite and .* a NaN"),
    "tilted": (lambda: gaussian.bures(A, TILTED), "cov_b .* got an asymmetric matrix"),
    "negative": (lambda: gaussian.bures(A, B - 9 * EYE), "cov_b .* the eigenvalue -"),
    "metric": (
        lambda: gaussian.bures(A, B, metric=0 * EYE),
        "metric must be finite and symmetric positive definite; got the eigenvalue 0",
    ),
    "mean": (
        lambda: gaussian.squared_distance(A[0], A, A[0] * np.inf, B),
        "mean_b must be finite",
    ),
    "tangent": (
        lambda: gaussian.exponential(A, TILTED),
        "tangent must be finite and symmetric; got an asymmetric",
    ),
    "weights": (lambda: gaussian.barycentre(X, -W), "weights must be >= 0"),
    "no weight": (lambda: gaussian.barycentre(X, 0 * W), "a positive total"),
    "tolerance": (lambda: gaussian.barycentre(X, tolerance=0.0), "tolerance must be"),
    "limit": (lambda: gaussian.barycentre(X, max_steps=-1), "max_steps must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises_with_the_name(name):
    call, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_types_raise():
    with pytest.raises(TypeError, match="cov_a must hold real numbers; got dtype comp"):
        gaussian.bures(A + 0j, B)
    with pytest.raises(TypeError, match="cov_b must be an array of real numbers"):
        gaussian.bures(A, None)
    with pytest.raises(TypeError, match="max_steps must be an integer"):
        gaussian.barycentre(X, max_steps=3.0)


def test_bad_traced_values_give_nan():
    f = jax.jit(jax.value_and_grad(gaussian.bures))
    for bad in (TILTED, -B, B * np.nan):
        value, gradient = f(bad, A)
        assert np.isnan(value)
        assert np.all(np.isnan(gradient))
    metric = jax.jit(lambda m: gaussian.bures(A, B, metric=m))
    assert np.isnan(metric(0 * EYE))
    assert np.isfinite(metric(M))
