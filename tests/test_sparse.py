"""The sparse Newton matrix, and that each way to a direction is taken where it should.

Independent references: dense NumPy matrices and solves.
"""

import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns import NewtonOptions
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur as schur
from jaxsns.hessian import sparse_system
from jaxsns.solvers.newton import direction, sparse_direction, ways

R = np.random.default_rng(0)


def _point(n, m, sparse, error=1e-3):
    """A plan with a few large entries a row, or with none that stands out."""
    log = R.normal(size=(n, m))
    kernel = np.exp(12 * log if sparse else 0.1 * log)
    kernel /= kernel.max(axis=0)
    rows = kernel.sum(1)
    return ways.Point(
        DenseKernel(jnp.asarray(kernel)),
        jnp.ones(n),
        jnp.ones(m),
        jnp.asarray(rows),
        jnp.asarray(kernel.sum(0)),
        jnp.zeros(n),
        jnp.zeros(m),
        jnp.asarray(True),
        jnp.asarray(error),
    )


def test_the_pattern_holds_the_largest_of_rows_and_columns_once():
    point = _point(40, 50, sparse=True)
    kernel = np.asarray(point.kernel.matrix)
    pattern = sparse_system.largest(point.kernel, point.u, point.v, point.rows)
    k = max(sparse_system.sizes(40, 50))
    kept = np.zeros_like(kernel, bool)
    np.put_along_axis(kept, np.argsort(-kernel, axis=1)[:, :k], True, 1)
    np.put_along_axis(kept.T, np.argsort(-kernel.T, axis=1)[:, :k], True, 1)
    entries = sparse_system.cut(pattern, k)
    v = R.normal(size=50)
    np.testing.assert_allclose(entries.times(jnp.asarray(v)), (kernel * kept) @ v)
    np.testing.assert_allclose(
        entries.squares_times(jnp.asarray(v)), (kernel * kept) ** 2 @ v
    )
    lost = sparse_system.dropped(pattern, point.u, point.v, point.rows)
    np.testing.assert_allclose(
        lost[-1], (kernel * ~kept).sum() / kernel.sum(), rtol=1e-6, atol=1e-15
    )


def test_the_lumped_system_is_the_matrix_it_says_and_is_definite():
    point = _point(40, 50, sparse=True)
    kernel = np.asarray(point.kernel.matrix)
    shift = jnp.asarray(1e-3)
    system = schur.make_system(
        point.kernel, point.u, point.v, point.rows, point.columns, shift
    )
    pattern = sparse_system.largest(point.kernel, point.u, point.v, point.rows)
    entries = sparse_system.cut(pattern, 3)
    sums = point.rows, point.columns
    stiff = point.row_stiffness, point.column_stiffness
    near = sparse_system.lumped(system, entries, point.u, point.v, sums, stiff)
    eye = np.eye(40)
    got = np.stack([schur.product(near, jnp.asarray(e)) for e in eye])
    kept = np.stack([entries.transpose_times(jnp.asarray(e)) for e in eye])
    assert np.all((kept == 0) | np.isclose(kept, kernel))
    theta = sparse_system.THETA
    rows = kept.sum(1) + theta * (kernel - kept).sum(1)
    columns = kept.sum(0) + theta * (kernel - kept).sum(0)
    root = 1 / np.sqrt(kernel.sum(1))
    schur = np.diag(rows) - kept @ np.diag(1 / columns) @ kept.T
    w = np.sqrt(kernel.sum(1) / kernel.sum())
    expected = root[:, None] * schur * root + 1e-3 * eye + np.outer(w, w)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert np.linalg.eigvalsh(got).min() > 0
    np.testing.assert_allclose(schur.diagonal(near), np.diag(got) - w**2)


def _find(point, kind, solver="sparse", target=1e-9):
    n, m = point.rows.shape[0], point.columns.shape[0]
    way = direction.unjudged(solver, n, m, jnp.dtype("float64"))
    way = way._replace(kind=jnp.asarray(kind, jnp.int32))
    residual = R.normal(size=n)
    residual -= residual.mean()
    residual = jnp.asarray(residual * np.asarray(point.rows))
    given = point, residual, jnp.asarray(1e-6), jnp.asarray(target), way
    return direction.find(solver, *given), direction.find("cholesky", *given)


@pytest.mark.parametrize("error", [1e-3, 1e-10])
def test_a_sparse_plan_goes_the_sparse_way(error):
    """As the Newton matrix at a large error, as preconditioner at a tiny one."""
    point = _point(120, 130, sparse=True, error=error)
    found, exact = _find(point, ways.UNJUDGED)
    assert int(found.way.kind) == ways.SPARSE
    if error == 1e-3:
        assert int(found.sparse_products) > 0
        assert int(found.products) == 0
    else:
        assert int(found.sparse_products) == 0
        assert 0 < int(found.products) <= sparse_direction.MOST
    scale = np.linalg.norm(exact.dx)
    assert np.linalg.norm(found.dx - exact.dx) <= 0.2 * scale  # accuracy 0.03


def test_a_plan_that_is_not_sparse_goes_to_the_exact_matrix():
    point = _point(120, 130, sparse=False)
    found, exact = _find(point, ways.UNJUDGED)
    assert int(found.way.kind) == ways.EXACT
    assert int(found.sparse_products) == 0
    # What was exact once stays exact, by conjugate gradients with enough products.
    again, exact = _find(point, ways.EXACT)
    np.testing.assert_allclose(again.dx, exact.dx, atol=0.1 * np.abs(exact.dx).max())
    assert int(again.products) > 0


def test_a_plan_that_nearly_splits_takes_few_products():
    """10-D points at a small epsilon: by conjugate gradients, the plan of Cholesky."""
    x, y = R.normal(size=(2, 150, 10))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / 1200
    s = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-10, history=True)
    rows = s.history.rows()
    taken = rows["kind"] != jaxsns.StepKind.SWEEP
    assert set(rows["kind"][taken]) == {jaxsns.StepKind.CG}
    # Measured 32 to 156 over 12 seeds.
    assert np.diff(rows["products"]).max() <= 250
    method = NewtonOptions(linear_solver="cholesky")
    other = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-10, method=method)
    assert s.converged
    assert other.converged
    np.testing.assert_allclose(s.plan(), other.plan(), atol=1e-9)


def test_the_direct_way_solves_the_newton_equations():
    """Against NumPy: Schur complement, shift, and the gauge pinned."""
    point = _point(90, 100, sparse=False)
    found, _ = _find(point, ways.UNJUDGED, solver="cholesky")
    kernel = np.asarray(point.kernel.matrix)
    rows = kernel.sum(1)
    schur = np.diag(rows) - kernel @ np.diag(1 / kernel.sum(0)) @ kernel.T
    residual = (schur + 1e-6 * np.diag(rows)) @ np.asarray(found.dx)
    # Orthogonal to the gauge, with the slope and curvature that the model promises.
    np.testing.assert_allclose(residual.sum(), 0, atol=1e-9 * np.abs(residual).sum())
    np.testing.assert_allclose(residual @ np.asarray(found.dx), found.slope, rtol=1e-9)
    curvature = found.dx @ schur @ found.dx
    np.testing.assert_allclose(curvature, found.curvature, rtol=1e-6)


@pytest.mark.parametrize("name", ["uneven", "tall", "zero_masses", "assignment"])
def test_a_solve_with_sparse_directions_gives_the_same_plan(name):
    cost, a, b = problems.ALL[name]()
    epsilon = 0.01 * cost.std()
    options = NewtonOptions(linear_solver="sparse", tolerance=1e-10)
    got = jaxsns.solve(cost, a, b, epsilon=epsilon, method=options)
    assert got.converged
    assert references.error(cost, a, b, got.f, got.g, epsilon) <= 1.01e-10
    expected = jaxsns.solve(cost, a, b, epsilon=epsilon, method="newton")
    np.testing.assert_allclose(got.plan(), expected.plan(), atol=1e-9)


def test_auto_looks_for_sparsity_in_large_plans_alone(monkeypatch):
    point = _point(140, 150, sparse=True, error=1e-3)
    found, _ = _find(point, ways.UNJUDGED, solver="auto")
    assert int(found.way.kind) == ways.UNJUDGED
    assert int(found.products) > 0
    assert not direction.may_be_sparse("auto", 8192)
    assert direction.may_be_sparse("auto", 8193)
    monkeypatch.setattr(direction, "LARGE", 100)
    monkeypatch.setattr(direction, "PROBE", 2)
    found, exact = _find(point, ways.UNJUDGED, solver="auto")
    assert int(found.way.kind) == ways.SPARSE
    assert int(found.sparse_products) > 0
    assert np.linalg.norm(found.dx - exact.dx) <= 0.2 * np.linalg.norm(exact.dx)
    assert sparse_system.sizes(5000, 5000) == sparse_system.SIZES
