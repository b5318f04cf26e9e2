"""Factors of nearly singular M-matrices against dense float64 algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxsns import newton_system
from jaxsns.geometry import columns
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.linear import graded

R = np.random.default_rng(8)


def _nearly_split(n, m, blocks, coupling):
    """A plan of blocks that hardly exchange mass, and A0, for which A0 w = 0."""
    row, column = np.arange(n) * blocks // n, np.arange(m) * blocks // m
    plan = R.uniform(0.1, 1, (n, m)) / n
    plan *= np.where(row[:, None] == column[None, :], 1, coupling)
    rows, cols = plan.sum(1), plan.sum(0)
    q = plan / np.sqrt(rows)[:, None] / np.sqrt(cols)[None, :]
    laplacian = -q @ q.T
    # The diagonal by what the rows sum to: 1 - sum q^2 would lose the small modes.
    w = np.sqrt(rows)
    np.fill_diagonal(laplacian, 0)
    np.fill_diagonal(laplacian, -(laplacian @ w) / w)
    return plan, q, laplacian, w


def _rows_of(matrix):
    product = jnp.asarray(matrix, jnp.float32)
    return lambda start, *shape: jax.lax.dynamic_slice(product, (start, start), shape)


def _lower(factor):
    """The factor as a matrix, in float64."""
    inverses, rests = ([np.asarray(x, float) for x in part] for part in factor)
    n = sum(x.shape[0] for x in inverses)
    lower, start = np.zeros((n, n)), 0
    for inverse, rest in zip(inverses, rests, strict=True):
        end = start + inverse.shape[0]
        lower[start:end, start:end] = np.linalg.inv(inverse)
        lower[end:, start:end] = rest.T
        start = end
    return lower


def _preconditioned(factor, matrix):
    """Eigenvalues of L^-1 A L^-T, rising."""
    lower = np.asarray(factor, float)
    half = scipy.linalg.solve_triangular(lower, matrix, lower=True)
    both = scipy.linalg.solve_triangular(lower, half.T, lower=True)
    return np.linalg.eigvalsh((both + both.T) / 2)


@pytest.mark.parametrize(("n", "m"), [(130, 130), (137, 301)])
@pytest.mark.parametrize("coupling", [1e-5, 1e-9, 1e-12])
def test_every_mode_of_a_nearly_split_plan_is_right(n, m, coupling):
    blocks = 9
    _, q, laplacian, w = _nearly_split(n, m, blocks, coupling)
    held = np.zeros(n)
    held[0] = w[0]
    small = coupling * 30
    assert np.sum(np.linalg.eigvalsh(laplacian) < small) == blocks
    matrix = laplacian + np.diag(held / w)
    products = _rows_of(np.triu(q @ q.T))
    factor = graded.factorise(products, jnp.asarray(w), jnp.asarray(held))
    assert {x.dtype for x in jax.tree.leaves(factor)} == {np.dtype(np.float32)}
    # Rounding of the factor's entries shows by 1e-7 over the root of an eigenvalue,
    # here of 18 couplings: measured at most 0.9e-7 over it.
    found = _preconditioned(_lower(factor), matrix)
    np.testing.assert_allclose(found, 1, atol=1.2e-7 / np.sqrt(18 * coupling) + 1e-5)
    # What float32 makes of it by itself, with the shift that it needs, does not do.
    plain = np.linalg.cholesky((matrix + 3e-7 * np.eye(n)).astype(np.float32))
    assert np.sum(_preconditioned(plain, matrix) < 0.5) >= (coupling < 1e-6) * 8


def test_rows_without_mass_become_rows_of_the_identity():
    n = 140
    _, q, _, w = _nearly_split(n, n, 4, 1e-6)
    none = np.arange(n) % 5 == 4  # the last one too
    q[none], w[none] = 0, 0
    surplus = jnp.asarray(0.3 * w)
    factor = graded.factorise(_rows_of(q @ q.T), jnp.asarray(w), surplus)
    lower = _lower(factor)
    np.testing.assert_array_equal(lower[none], np.eye(n)[none])
    product = -q @ q.T
    np.fill_diagonal(product, 0)
    some = ~none
    expected = product[some][:, some]
    diagonal = (0.3 * w[some] - expected @ w[some]) / w[some]
    np.fill_diagonal(expected, diagonal)
    np.testing.assert_allclose(
        (lower @ lower.T)[some][:, some], expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("gauge", [True, False])
def test_a_direction_with_a_new_factor_takes_hardly_any_products(gauge):
    n = 150
    plan, _, laplacian, w = _nearly_split(n, n, 10, 1e-9)
    rows, cols = plan.sum(1), plan.sum(0)
    stiffness = 0.0 if gauge else 1e-4
    system = newton_system.make_system(
        DenseKernel(jnp.asarray(plan)),
        jnp.ones(n),
        jnp.ones(n),
        jnp.asarray(rows) * (1 + stiffness),
        jnp.asarray(cols),
        jnp.asarray(0.0),
        gauge,
    )
    factor = newton_system.factorise(system)
    w = np.asarray(system.root)
    exact = laplacian / (1 + stiffness)
    exact += np.diag(np.full(n, stiffness / (1 + stiffness)))
    if gauge:
        exact = laplacian + np.outer(w, w) / (w @ w)
    x = R.normal(size=n) + 10 * np.sign(np.sin(np.arange(n) // 15 * 1.7)) * w
    x -= w * (w @ x) / (w @ w) * gauge
    rhs = jnp.asarray(exact @ x)
    end = newton_system.solve_factored(system, factor, rhs, 1e-4, 10)
    assert bool(end.converged)
    assert int(end.steps) <= 2  # measured 1
    # The mean of a block hardly shows in the right side: a mode of 1e-9.
    error = np.linalg.norm(np.asarray(end.x) - x) / np.linalg.norm(x)
    assert error <= 2e-2, error


@pytest.mark.parametrize("n", [1, 5, 8, 9, 24, 61])
def test_maxima_of_columns(monkeypatch, n):
    monkeypatch.setattr(columns, "SMALL", 0)
    cost, a = R.normal(size=(n, 7)), R.normal(size=n)
    both = lambda c, a: (c - a[:, None], -c)
    got = jax.jit(lambda c, a: columns.maxima(both, c, a))(cost, a)
    np.testing.assert_array_equal(got[0], (cost - a[:, None]).max(0))
    np.testing.assert_array_equal(got[1], (-cost).max(0))
    many = jnp.asarray(R.normal(size=(3, n, 7)))
    got = jax.vmap(lambda c: columns.maxima(jnp.sin, c))(many)
    np.testing.assert_allclose(got, np.sin(many).max(1), rtol=1e-15)
    bad = jnp.asarray(cost).at[n - 1, 3].set(jnp.nan)
    assert np.isnan(columns.maxima(lambda c: c, bad)[3])
