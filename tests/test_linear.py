"""The linear floor: conjugate gradients, Cholesky, ELL, and the Newton system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur as schur
from jaxsns.implicit import potentials as implicit
from jaxsns.linear import cholesky, ell, lapack
from jaxsns.linear.conjugate_gradient import conjugate_gradient
from jaxsns.linear.gmres import gmres

R = np.random.default_rng(0)


def _definite(n=30, condition=1e4):
    q = np.linalg.qr(R.normal(size=(n, n)))[0]
    return (q * np.geomspace(1, 1 / condition, n)) @ q.T


def test_conjugate_gradient_iterates_match_scipy():
    from scipy.sparse.linalg import cg

    matrix, rhs = _definite(), R.normal(size=30)
    for steps in (1, 3, 7):
        expected, _ = cg(matrix, rhs, rtol=0, maxiter=steps)
        got = conjugate_gradient(
            lambda v: jnp.asarray(matrix) @ v,
            jnp.asarray(rhs),
            lambda v: v,
            jnp.asarray(0.0),
            jnp.asarray(steps),
        )
        np.testing.assert_allclose(got.x, expected, rtol=1e-9)
        assert int(got.steps) == steps
        assert not bool(got.converged)


def test_conjugate_gradient_converges_and_says_so():
    matrix, rhs = jnp.asarray(_definite()), jnp.asarray(R.normal(size=30))
    run = lambda tolerance, steps: conjugate_gradient(
        lambda v: matrix @ v,
        rhs,
        lambda v: v / jnp.diag(matrix),
        jnp.asarray(tolerance),
        steps,
    )
    end = run(1e-12, jnp.asarray(500))
    assert bool(end.converged)
    np.testing.assert_allclose(matrix @ end.x, rhs, atol=1e-10)
    # Exact at the last permitted step is a success; none permitted gives zero.
    assert bool(run(1e-12, end.steps).converged)
    np.testing.assert_array_equal(run(1e-12, jnp.asarray(0)).x, 0)


@pytest.mark.parametrize("matrix", [-np.eye(5), np.full((5, 5), np.nan)])
def test_conjugate_gradient_stops_at_bad_curvature(matrix):
    end = conjugate_gradient(
        lambda v: jnp.asarray(matrix) @ v,
        jnp.ones(5),
        lambda v: v,
        jnp.asarray(1e-9),
        jnp.asarray(50),
    )
    assert int(end.steps) == 1
    assert not bool(end.converged)
    np.testing.assert_array_equal(end.x, 0)


def test_refinement_removes_the_error_of_a_shift():
    matrix, rhs = _definite(), R.normal(size=30)
    exact = np.linalg.solve(matrix, rhs)
    factor = cholesky.factorise(jnp.asarray(matrix + 1e-6 * np.eye(30)))
    errors = [
        np.linalg.norm(
            cholesky.refined_solve(
                factor, lambda v: jnp.asarray(matrix) @ v, jnp.asarray(rhs), k
            )
            - exact
        )
        for k in range(3)
    ]
    assert errors[1] < 0.05 * errors[0]
    assert errors[2] < 0.05 * errors[1]


def test_ell_is_the_union_of_rows_and_columns():
    matrix = np.abs(R.normal(size=(9, 7)))
    k = 3
    rows = np.argsort(-matrix, axis=1)[:, :k].astype(np.int32)
    columns = np.argsort(-matrix.T, axis=1)[:, :k].astype(np.int32)
    expected = np.zeros_like(matrix)
    np.put_along_axis(expected, rows, np.take_along_axis(matrix, rows, 1), 1)
    np.put_along_axis(expected.T, columns, np.take_along_axis(matrix.T, columns, 1), 1)
    sparse = ell.unite(
        *(
            jnp.asarray(x)
            for x in (
                np.take_along_axis(matrix, rows, 1),
                rows,
                np.take_along_axis(matrix.T, columns, 1),
                columns,
            )
        )
    )
    u, v = R.normal(size=9), R.normal(size=7)
    np.testing.assert_allclose(sparse.times(jnp.asarray(v)), expected @ v)
    np.testing.assert_allclose(sparse.transpose_times(jnp.asarray(u)), u @ expected)


def _system(shift=0.01):
    kernel, u, v = R.random((8, 11)), R.random(8) + 0.1, R.random(11) + 0.1
    kernel[2] = 0
    plan = u[:, None] * kernel * v[None]
    rows, columns = plan.sum(1), plan.sum(0)
    system = schur.make_system(
        DenseKernel(jnp.asarray(kernel)),
        *(jnp.asarray(x) for x in (u, v, rows, columns, shift)),
    )
    inverse = np.where(rows > 0, 1 / np.sqrt(np.where(rows > 0, rows, 1)), 0)
    q = inverse[:, None] * plan / np.sqrt(columns)
    w = np.sqrt(rows / rows.sum())
    return system, (1 + shift) * np.eye(8) - q @ q.T + np.outer(w, w), w


def test_newton_system_products_diagonal_and_solves():
    system, dense, w = _system()
    v = R.normal(size=8)
    v -= w * (w @ v)
    np.testing.assert_allclose(schur.product(system, jnp.asarray(v)), dense @ v)
    without_gauge = np.diag(dense) - w**2
    np.testing.assert_allclose(schur.diagonal(system), without_gauge)
    expected = np.linalg.solve(dense, v)
    direct = schur.solve_cholesky(system, jnp.asarray(v))
    np.testing.assert_allclose(direct, expected, rtol=1e-9)
    steps = schur.solve_cg(system, jnp.asarray(v), jnp.asarray(1e-13), jnp.asarray(100))
    np.testing.assert_allclose(steps.x, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 5), (5, 1)])
def test_solve_hessian_is_the_pseudo_inverse(shape):
    n, m = shape
    plan = R.random(shape)
    hessian = np.block([[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]])
    top, bottom = R.normal(size=n), R.normal(size=m)
    bottom *= top.sum() / bottom.sum()  # in the range: equal totals
    u, v = implicit.solve_hessian(*(jnp.asarray(x) for x in (plan, top, bottom)))
    np.testing.assert_allclose(
        hessian @ np.concatenate([u, v]), np.concatenate([top, bottom]), atol=1e-11
    )


def test_solve_hessian_factorises_once_for_many_right_hand_sides():
    plan = jnp.asarray(R.random((70, 80)))
    many = jax.vmap(implicit.solve_hessian, in_axes=(None, 0, 0))
    tops, bottoms = jnp.ones((4, 70)), jnp.ones((4, 80))
    text = jax.jit(many).lower(plan, tops, bottoms).as_text()
    assert "tensor<70x70xf64>" in text
    assert "tensor<4x70x70xf64>" not in text


def test_solve_that_fails_is_nan():
    plan = jnp.full((4, 4), jnp.nan)
    u, _ = implicit.solve_hessian(plan, jnp.ones(4), jnp.ones(4))
    assert np.all(np.isnan(u))


def test_a_linear_solve_that_went_wrong_is_nan(monkeypatch):
    """The residual is looked at: a finite wrong answer must not get out."""
    monkeypatch.setattr(
        schur, "solve_cholesky", lambda system, rhs, refinements=0: 10 * rhs
    )
    plan, top, bottom = R.random((6, 9)), R.normal(size=6), R.normal(size=9)
    u, _ = implicit.solve_hessian(*(jnp.asarray(x) for x in (plan, top, bottom)))
    assert np.all(np.isnan(u))


def _many_definite(*shape):
    a = R.normal(size=shape)
    return a @ np.swapaxes(a, -1, -2) + shape[-1] * np.eye(shape[-1])


@pytest.mark.parametrize("n", [3, 20])
def test_batched_factorisations_and_solves(n):
    matrix, rhs = _many_definite(2, 3, n, n), R.normal(size=(2, 3, n))
    factor = np.linalg.cholesky(matrix)
    each = jax.vmap(jax.vmap(lapack.cholesky_solve))
    got = np.tril(lapack.cholesky(jnp.asarray(matrix)))
    np.testing.assert_allclose(got, factor, rtol=1e-12)
    expected = np.linalg.solve(matrix, rhs[..., None])[..., 0]
    np.testing.assert_allclose(each(factor, rhs), expected, rtol=1e-10)
    shared = jax.vmap(jax.vmap(lapack.cholesky_solve, (None, 0)))
    expected = np.linalg.solve(matrix[:, :1], rhs[..., None])[..., 0]
    np.testing.assert_allclose(shared(factor[:, 0], rhs), expected, rtol=1e-10)
    bad = lapack.cholesky(jnp.asarray(matrix).at[1, 2].set(-np.eye(n)))
    assert np.all(np.isnan(bad[1, 2][np.tril_indices(n)]))
    assert np.all(np.isfinite(bad[0]))


def test_batched_factorisations_at_once_do_not_stand_still():
    # As plain batches these four stop jaxlib 0.10 for ever on two cores.
    def run(matrices):
        factors = [lapack.cholesky(a) for a in matrices]
        rhs = jnp.ones(matrices.shape[1:3])
        return [jax.vmap(lapack.cholesky_solve)(x, rhs) for x in factors]

    matrices = _many_definite(4, 64, 60, 60)
    for x, a in zip(jax.jit(run)(jnp.asarray(matrices)), matrices, strict=True):
        expected = np.linalg.solve(a, np.ones((64, 60, 1)))[..., 0]
        np.testing.assert_allclose(x, expected, rtol=1e-10)


def _solved(matrix, rhs, tolerance=1e-12, restart=10, restarts=1):
    run = lambda a, b: gmres(
        lambda v: a @ v, b, tolerance=tolerance, restart=restart, restarts=restarts
    )
    return jax.jit(run)(jnp.asarray(matrix), jnp.asarray(rhs))


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_gmres_has_the_least_residual_of_its_directions(steps):
    r = np.random.default_rng(0)
    matrix, rhs = r.normal(size=(20, 20)), r.normal(size=20)
    powers = [rhs]
    for _ in range(steps - 1):
        powers.append(matrix @ powers[-1])
    basis = np.linalg.qr(np.stack(powers, axis=1))[0]
    weights = np.linalg.lstsq(matrix @ basis, rhs, rcond=None)[0]
    x, left = _solved(matrix, rhs, restart=steps)
    np.testing.assert_allclose(x, basis @ weights, atol=1e-11)
    np.testing.assert_allclose(left, np.linalg.norm(rhs - matrix @ x), rtol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)]
)
def test_gmres_with_restarts_alone_and_in_lanes(dtype, tolerance):
    r = np.random.default_rng(1)
    size = np.asarray([0.0, 0.1, 0.5])[:, None, None]
    matrices = np.eye(30) + size * r.normal(size=(3, 30, 30)) / 30**0.5
    sides = r.normal(size=(3, 30))
    wanted = np.linalg.solve(matrices, sides[..., None])[..., 0]
    run = lambda a, b: _solved(a, b, tolerance, restart=7, restarts=20)
    data = jnp.asarray(matrices, dtype), jnp.asarray(sides, dtype)
    x, left = jax.vmap(run)(*data)
    assert x.dtype == dtype
    assert np.all(left <= tolerance * np.linalg.norm(sides, axis=1).astype(dtype))
    np.testing.assert_allclose(x, wanted, atol=20 * tolerance)
    for k in range(3):
        np.testing.assert_allclose(run(*(v[k] for v in data))[0], x[k], atol=tolerance)


def test_gmres_of_singular_and_of_small_systems():
    r = np.random.default_rng(2)
    centre = np.eye(6) - 1 / 6
    rhs = centre @ r.normal(size=6)
    x, left = _solved(centre, rhs, restart=6)
    np.testing.assert_allclose(centre @ x, rhs, atol=1e-14)
    # A right side that no x has: what is left is no less than what cannot be reached.
    assert not _solved(centre, rhs + 1, restart=6, restarts=3)[1] < 6**0.5
    x, left = _solved(np.full((1, 1), 2.0), np.ones(1), restart=1)
    np.testing.assert_allclose(x, 0.5)
    x, left = _solved(centre, np.zeros(6), restart=6)
    assert float(left) == 0
    assert not np.any(x)


@pytest.mark.parametrize("steps", [2, 4, 6])
def test_gmres_stops_at_the_first_direction_that_is_enough(steps):
    r = np.random.default_rng(3)
    matrix, rhs = np.eye(20) + 0.3 * r.normal(size=(20, 20)), r.normal(size=20)
    found = [_solved(matrix, rhs, restart=k) for k in (steps - 1, steps)]
    before, after = (float(left) / np.linalg.norm(rhs) for _, left in found)
    assert after < 0.98 * before
    x, left = _solved(matrix, rhs, tolerance=(before * after) ** 0.5)
    np.testing.assert_allclose(x, found[1][0], atol=1e-13)


def test_gmres_of_a_matrix_near_singular():
    # Without the second orthogonalisation what is left is 4e-9 of the right side.
    r = np.random.default_rng(0)
    left, right = (np.linalg.qr(r.normal(size=(30, 30)))[0] for _ in range(2))
    matrix = left * np.logspace(0, -8, 30) @ right
    rhs = matrix @ r.normal(size=30)
    assert _solved(matrix, rhs, 1e-14, 30)[1] < 1e-14 * np.linalg.norm(rhs)
