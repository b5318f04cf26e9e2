"""The verdict: the error that is reported is that of the potentials that come back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns.numerics import lost_mass
from jaxsns.problem import dual, kernel_verdict

R = np.random.default_rng(0)


@pytest.mark.parametrize("epsilon", [1e-3, 3e-4])
def test_float32_does_not_report_less_than_rounding_leaves(epsilon):
    """A kernel repeats its own rounding errors: here it must not be the judge."""
    shares = []
    for seed in range(12):
        r = np.random.default_rng(seed)
        x, y = r.random((60, 2)), r.random((70, 2))
        cost = ((x[:, None] - y[None]) ** 2).sum(-1).astype(np.float32)
        s = jaxsns.solve(cost, epsilon=epsilon, method="newton", tolerance=2e-6)
        a, b = (np.asarray(v, float) for v in (s.problem.a, s.problem.b))
        true = references.error(cost, a, b, s.f, s.g, float(np.float32(epsilon)))
        shares.append(float(s.error) / true)
    # Of 40 seeds: 1.01 to 1.03 in the median, 0.65 at least; by a kernel 0.74 to 0.82.
    assert np.median(shares) >= 0.92
    assert min(shares) >= 0.6


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
def test_far_above_rounding_the_kernel_judges_and_no_pass_is_made(method):
    cost, a, b = problems.uneven()
    s = jaxsns.solve(
        cost, a, b, epsilon=0.05 * cost.max(), method=method, tolerance=1e-8
    )
    assert s.converged
    assert int(s.counts.passes) == 1
    true = references.error(cost, a, b, s.f, s.g, float(s.epsilon))
    np.testing.assert_allclose(s.error, true, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("name", ["uneven", "zero_masses", "penalised", "heavy", "far"])
def test_the_verdict_on_a_kernel_is_that_of_a_pass(name):
    cost, a, b = problems.zero_masses() if name == "zero_masses" else problems.uneven()
    soft = {"rho_a": 2.0, "rho_b": np.linspace(1, 3, 37)}
    rho = soft if name in ("penalised", "heavy") else {}
    a = 3 * a if name == "heavy" else a
    epsilon = 0.2
    # Far: the gauge moves potentials by more than an exponential can hold.
    cost = cost + (1e4 if name == "far" else 0)
    problem = jaxsns.make_problem(cost, a, b, epsilon=epsilon, **rho)
    f = jnp.asarray(R.normal(size=24) * epsilon)
    absorbed = dual.absorb(problem, f)
    x = jnp.asarray(R.normal(size=24))
    f, g, seen = _moved(problem, absorbed, x)
    expected = dual.judged(problem, f, g)[2]
    seen = kernel_verdict.relative(problem, f, g, seen)
    bound = float(kernel_verdict.missed(problem, absorbed, f, g))
    assert abs(float(seen - expected)) <= bound < 1e-9


def _moved(problem, absorbed, x):
    """Potentials of a scaling x with columns that fit, and their error on a kernel."""
    kernel, columns = absorbed.kernel, absorbed.column_target
    y = dual.columns_for(kernel, columns, x)
    wanted = absorbed.row_target.at(x)
    missing = jnp.sum(jnp.abs(dual.rows_for(kernel, x, y) - wanted))
    f = absorbed.f + problem.epsilon * x
    return f, problem.epsilon * y - absorbed.top, missing / jnp.sum(wanted)


def test_what_a_kernel_has_lost_is_known_to_its_verdict():
    """Two blocks, e^-400 between them, and potentials that make this e^-2."""
    n, epsilon = 6, 0.5
    cost = np.full((2 * n, 2 * n), 400 * epsilon)
    cost[:n, :n], cost[n:, n:] = R.random((2, n, n))
    problem = jaxsns.make_problem(cost, epsilon=epsilon)
    absorbed = dual.absorb(problem, jnp.zeros(2 * n))
    apart = jnp.repeat(jnp.asarray([199.0, -199.0]), n)
    f, g, seen = _moved(problem, absorbed, apart)
    expected = dual.judged(problem, f, g)[2]
    missed = kernel_verdict.missed(problem, absorbed, f, g)
    assert 0.1 <= float(expected - seen) <= float(missed)
    # And where nothing is lost that counts, what it could be is nothing.
    x = jnp.zeros(2 * n)
    v = jnp.exp(dual.columns_for(absorbed.kernel, absorbed.column_target, x))
    assert float(lost_mass(jnp.exp(x), v)) <= 1e-140
    f, g, seen = _moved(problem, absorbed, x)
    assert float(kernel_verdict.missed(problem, absorbed, f, g)) <= 1e-12


@pytest.mark.parametrize("tolerance", [1e-13, 1e-12, 1e-11])
def test_a_kernel_judges_by_a_bound_where_rounding_is_small_enough(tolerance):
    """Never below the true error; where it might be too large a pass is made."""
    passes, above = [], []
    for seed in range(6):
        r = np.random.default_rng(seed)
        cost, scale = r.random((60, 70)), 10.0 ** (seed - 3)
        epsilon = scale * [0.002, 0.02, 0.3][seed % 3]
        s = jaxsns.solve(scale * cost, epsilon=epsilon, tolerance=tolerance)
        assert s.converged
        a, b = np.full(60, 1 / 60), np.full(70, 1 / 70)
        true = _exact_error(scale * cost, a, b, s.f, s.g, epsilon)
        assert true <= float(s.error) + 0.04 * tolerance
        assert true <= tolerance
        passes.append(int(s.counts.passes))
        above.append((float(s.error) - true) / tolerance)
    assert min(passes) == 1
    assert max(above) <= 0.42  # the bound may be 0.4


def _exact_error(cost, a, b, f, g, epsilon):
    """L1 error in extended precision, relative."""
    wide = np.longdouble
    cost, f, g = (np.asarray(v, wide) for v in (cost, f, g))
    mass = np.exp((f[:, None] + g[None] - cost) / wide(epsilon))
    both = np.abs(mass.sum(1) - a).sum() + np.abs(mass.sum(0) - b).sum()
    return float(both / min(a.sum(), b.sum()))


def test_what_is_wanted_of_a_penalised_marginal_rounds_as_well():
    """In float32, exp(-f / rho), rho = epsilon / 50; 0.043 of it missed otherwise."""
    tolerance, epsilon, rho = (np.float32(v) for v in (1e-5, 0.5, 0.01))
    for seed in range(8):
        cost = 0.02 * np.random.default_rng(seed).random((40, 50)) - 0.6
        cost = cost.astype(np.float32)
        s = jaxsns.solve(
            cost, epsilon=epsilon, rho_a=rho, rho_b=rho, tolerance=tolerance
        )
        wide = np.longdouble
        f, g, a, b = (np.asarray(v, wide) for v in (s.f, s.g, s.problem.a, s.problem.b))
        a, b = a * np.exp(-f / wide(rho)), b * np.exp(-g / wide(rho))
        true = _exact_error(cost, a, b, f, g, epsilon)
        assert true <= float(s.error) + 0.01 * tolerance


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0, 3000.0])
def test_the_error_is_that_of_what_comes_back_whatever_is_added_to_costs(offset, lanes):
    """Potentials in float32 have an ulp that is 1e-3 of epsilon at the largest.

    It is within 0.008 of the tolerance, or a bound within it. A gauge fixed once more
    after the verdict left up to 1.4 tolerances more than it said, exponents that lose
    what the kernel loses 0.04; f + g rounded first says far more.
    """
    tolerance, epsilon = np.float32(2e-5), np.float32(0.5)
    for seed in range(8):
        r = np.random.default_rng(seed)
        x, y = r.normal(size=(2, 40, 3))
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        cost = (cost + offset).astype(np.float32)
        a, b = (np.exp(3 * r.normal(size=40)) for _ in range(2))
        a, b = ((m / m.sum()).astype(np.float32) for m in (a, b))
        one = functools.partial(jaxsns.solve, a=a, b=b, tolerance=tolerance)
        solve = lambda c, e, one=one: one(c, epsilon=e)
        if lanes:
            s = jax.vmap(solve)(jnp.stack([cost, cost]), jnp.asarray([epsilon, 1.0]))
            f, g, error = s.f[0], s.g[0], float(s.error[0])
        else:
            s = solve(cost, epsilon)
            f, g, error = s.f, s.g, float(s.error)
        true = _exact_error(cost, a, b, f, g, epsilon)
        assert true <= error + 0.02 * tolerance
        assert error <= max(true + 0.02 * tolerance, tolerance)


def test_masses_at_the_end_of_the_range_are_not_said_to_be_right():
    """Differences of masses of 1e-305 underflow: the error was said to be 0."""
    rho = {"rho_a": 0.12499439, "rho_b": 0.03555284}
    cost, a, b = np.full((1, 20), 400.0), np.ones(1), np.full(20, 0.05)
    for tolerance in (1e-8, 1e-10, 1e-12):
        s = jaxsns.solve(
            cost, a, b, epsilon=0.41012156611737155, **rho, tolerance=tolerance,
            method="newton", continuation=False,
        )  # fmt: skip
        assert not s.converged
        assert float(s.error) >= 1e-10  # it is 7e-11, and cannot be known


@pytest.mark.parametrize("method", ["sinkhorn", "symmetric"])
def test_sweeps_of_a_fixed_number_count_the_rounding_of_potentials(method):
    r = np.random.default_rng(3)
    x = r.random((30, 2))
    epsilon = 0.1
    cost = ((x[:, None] - x[None]) ** 2).sum(-1) + 3.4e5 * epsilon
    a = np.full(30, 1 / 30)
    early = {"early_stop": False} if method == "sinkhorn" else {"tolerance": 1e-9}
    s = jaxsns.solve(cost, a, a, epsilon=epsilon, method=method, max_steps=400, **early)
    true = _exact_error(cost, a, a, s.f, s.g, epsilon)
    assert true >= 1e-12
    assert true <= float(s.error) <= 1e-8
