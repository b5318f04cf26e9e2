"""Potentials, plans and values against answers from elsewhere."""

import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns import SinkhornOptions

METHODS = {
    "auto": "auto",
    "newton": "newton",
    "sinkhorn": "sinkhorn",
    "plain": SinkhornOptions(tolerance=1e-12, overrelaxation=False),
    "sns": "sns",
}


@pytest.mark.parametrize("name", problems.ALL)
@pytest.mark.parametrize("method", METHODS)
def test_potentials_and_plan_match_a_dense_loop(name, method):
    cost, a, b = problems.ALL[name]()
    epsilon = 0.05 * cost.std()
    f, g = references.sinkhorn(cost, a, b, epsilon)
    got = jaxsns.solve(
        cost, a, b, epsilon=epsilon, tolerance=1e-12, method=METHODS[method]
    )
    assert got.converged, got
    real_a, real_b = a > 0, b > 0
    # Measured: potentials 2e-12 of epsilon times the condition (<= 100), plan 3e-13.
    np.testing.assert_allclose(
        got.f[real_a], f[real_a], atol=1e-9 * max(epsilon, 1), rtol=0
    )
    np.testing.assert_allclose(
        got.g[real_b], g[real_b], atol=1e-9 * max(epsilon, 1), rtol=0
    )
    np.testing.assert_allclose(
        got.plan(), references.plan(cost, f, g, epsilon), atol=1e-11, rtol=0
    )
    assert np.all(np.isneginf(np.asarray(got.f)[~real_a]))
    assert np.all(np.isneginf(np.asarray(got.g)[~real_b]))


@pytest.mark.parametrize("name", problems.ALL)
def test_reported_error_is_the_true_one(name):
    cost, a, b = problems.ALL[name]()
    epsilon = 0.02 * cost.std()
    for tolerance in (1e-2, 1e-6, 1e-11):
        got = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=tolerance)
        true = references.error(cost, a, b, got.f, got.g, epsilon)
        assert got.converged
        assert true <= tolerance * (1 + 1e-6) + 1e-13
        np.testing.assert_allclose(got.error, true, atol=1e-13)


@pytest.mark.parametrize("name", ["assignment", "uneven", "clusters", "zero_masses"])
def test_small_epsilon_reaches_the_linear_program(name):
    cost, a, b = problems.ALL[name]()
    cost = cost / cost.max()
    optimum = references.linear_program(cost, a, b)
    epsilon = 1 / 1200
    got = jaxsns.solve(cost, a, b, epsilon=epsilon)
    assert got.converged
    # <C, P> exceeds the optimum by at most epsilon times the entropy that is left.
    entropy = np.log(cost.size)
    assert optimum - 1e-9 <= float(got.transport_cost) <= optimum + epsilon * entropy
    # Dual feasible up to epsilon log, so the LP is bounded from below as well.
    assert float(got.value) <= optimum + 1e-9


@pytest.mark.parametrize("method", METHODS)
def test_one_by_one_and_uniform_closed_forms(method):
    method = METHODS[method]
    one = jaxsns.solve([[0.7]], epsilon=0.1, method=method)
    np.testing.assert_allclose(one.plan(), [[1.0]], atol=1e-14)
    np.testing.assert_allclose(one.value, 0.7 - 0.1, atol=1e-14)
    flat = jaxsns.solve(np.full((4, 6), 3.0), epsilon=0.5, method=method)
    np.testing.assert_allclose(flat.plan(), np.full((4, 6), 1 / 24), atol=1e-15)
    # Gauge <a, f> = <b, g>: f + g = C + epsilon log P, half each.
    half = (3.0 + 0.5 * np.log(1 / 24)) / 2
    np.testing.assert_allclose(flat.f, np.full(4, half), atol=1e-13)
    np.testing.assert_allclose(flat.g, np.full(6, half), atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_two_by_two_closed_form(method):
    epsilon, delta = 0.3, 0.8
    cost = np.array([[0.0, delta], [delta, 0.0]])
    got = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-13, method=METHODS[method])
    ratio = np.exp(-delta / epsilon)
    diagonal = 0.5 / (1 + ratio)
    expected = [[diagonal, diagonal * ratio], [diagonal * ratio, diagonal]]
    np.testing.assert_allclose(got.plan(), expected, atol=1e-13)


def test_gaussians_on_a_line():
    """Entropic transport of N(0, s^2) to N(t, q^2): <C, P> in closed form.

    With 4 epsilon' = epsilon (cost |x-y|^2): the plan is Gaussian with covariance
    k = (sqrt(4 s^2 q^2 + sigma^4) - sigma^2) / 2, sigma^2 = epsilon / 2
    (Janati, Muzellec, Peyre, Cuturi, NeurIPS 2020, Theorem 1).
    """
    s, q, shift, epsilon = 1.0, 0.7, 0.4, 0.5
    grid = np.linspace(-7, 7, 400)
    a = np.exp(-(grid**2) / (2 * s**2))
    b = np.exp(-((grid - shift) ** 2) / (2 * q**2))
    a, b = a / a.sum(), b / b.sum()
    cost = (grid[:, None] - grid[None]) ** 2
    got = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-11)
    sigma2 = epsilon / 2
    covariance = (np.sqrt(4 * s**2 * q**2 + sigma2**2) - sigma2) / 2
    expected = s**2 + q**2 + shift**2 - 2 * covariance
    assert got.converged
    # The grid cuts the tails at 6 standard deviations: measured 4e-9.
    np.testing.assert_allclose(got.transport_cost, expected, rtol=1e-6)
    mean = got.barycentric(jnp.asarray(grid))
    inner = slice(100, 300)
    slope = covariance / s**2
    np.testing.assert_allclose(mean[inner], shift + slope * grid[inner], atol=1e-6)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_cost_scale_changes_only_the_units(factor):
    cost, a, b = problems.uneven()
    epsilon = 0.01 * cost.std()
    base = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-12)
    scaled = jaxsns.solve(
        factor * cost, a, b, epsilon=factor * epsilon, tolerance=1e-12
    )
    assert scaled.converged
    np.testing.assert_allclose(scaled.f / factor, base.f, atol=1e-9)
    np.testing.assert_allclose(scaled.plan(), base.plan(), atol=1e-11)


def test_shift_of_the_cost_moves_the_potentials_by_half_each():
    cost, a, b = problems.uneven()
    base = jaxsns.solve(cost, a, b, epsilon=0.1, tolerance=1e-12)
    moved = jaxsns.solve(cost + 100.0, a, b, epsilon=0.1, tolerance=1e-12)
    np.testing.assert_allclose(moved.f, base.f + 50, atol=1e-9)
    np.testing.assert_allclose(moved.g, base.g + 50, atol=1e-9)


@pytest.mark.parametrize("total", [1e-6, 1.0, 1e6])
def test_total_mass_scales_the_plan(total):
    cost, a, b = problems.uneven()
    base = jaxsns.solve(cost, a, b, epsilon=0.05, tolerance=1e-12)
    got = jaxsns.solve(cost, total * a, total * b, epsilon=0.05, tolerance=1e-12)
    assert got.converged
    np.testing.assert_allclose(got.plan() / total, base.plan(), atol=1e-11)


def test_nearly_equal_totals_are_solved_and_unequal_ones_refused():
    cost, a, b = problems.uneven()
    got = jaxsns.solve(cost, a, b * (1 + 4e-16), epsilon=0.05, tolerance=1e-12)
    assert got.converged
    with pytest.raises(ValueError, match="equal totals"):
        jaxsns.solve(cost, a, b * (1 + 1e-9), epsilon=0.05)


def test_wide_range_of_masses():
    cost, a, b = problems.uneven()
    a = a * np.logspace(-12, 0, a.size)
    a = a / a.sum()
    got = jaxsns.solve(cost, a, b, epsilon=0.02, tolerance=1e-12)
    f, g = references.sinkhorn(cost, a, b, 0.02)
    assert got.converged
    np.testing.assert_allclose(
        got.plan(), references.plan(cost, f, g, 0.02), atol=1e-11
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("epsilon", [1 / 1200, 1e-4])
def test_small_epsilon_converges_where_the_plan_splits(seed, epsilon):
    cost, a, b = problems.assignment(60, seed)
    got = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-10)
    assert got.converged, got
    assert references.error(cost, a, b, got.f, got.g, epsilon) <= 1e-10


def test_jit_and_eager_agree():
    """Some jax versions computed wrong numbers under jit only."""
    import jax

    cost, a, b = (jnp.asarray(x) for x in problems.uneven(12, 9))
    run = lambda c: jaxsns.solve(c, a, b, epsilon=0.2, tolerance=1e-12, max_steps=30)
    fast = jax.jit(run)(cost)
    with jax.disable_jit():
        slow = run(cost)
    np.testing.assert_allclose(fast.f, slow.f, atol=1e-12)
    np.testing.assert_allclose(fast.plan(), slow.plan(), atol=1e-13)
    assert int(fast.status) == int(slow.status)


def test_a_cloud_onto_itself():
    """The plan nearly is the identity: potentials are free, the plan is not."""
    x = np.random.default_rng(0).normal(size=(30, 2))
    cost = ((x[:, None] - x[None]) ** 2).sum(-1)
    got = jaxsns.solve(cost, epsilon=0.01, tolerance=1e-12)
    assert got.converged
    plan = np.asarray(got.plan())
    np.testing.assert_allclose(plan, plan.T, atol=1e-12)
