"""Sparse plans: certificates of optimality, projections and differences in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from references import linear_program
from scipy.optimize import minimize

import jaxsns
from jaxsns import Status, solve_sparse

R = np.random.default_rng(0)
GAMMA = 3.0
COST, A, B = problems.uneven()


def slack(cost, f, g):
    with np.errstate(invalid="ignore"):
        out = np.asarray(f)[:, None] + np.asarray(g)[None, :] - cost
    return np.where(np.isfinite(out), np.maximum(out, 0), 0)


def simplex(x, mass):
    """Projection of each row of x on {p >= 0, sum p = mass}, by sorting."""
    u = -np.sort(-x, axis=1)
    share = (np.cumsum(u, axis=1) - mass[:, None]) / np.arange(1, x.shape[1] + 1)
    k = (u > share).sum(1) - 1
    return np.maximum(x - share[np.arange(len(x)), k][:, None], 0)


def dykstra(cost, a, b, gamma, steps):
    """Plan as the projection of -C / gamma on the plans, by alternating projections."""
    p = -cost / gamma
    rows, columns = np.zeros_like(p), np.zeros_like(p)
    for _ in range(steps):
        q = simplex(p + rows, a)
        rows += p - q
        p = simplex((q + columns).T, b).T
        columns += q - p
    return p


@pytest.mark.parametrize("name", sorted(problems.ALL))
def test_optimal_by_certificate(name):
    cost, a, b = problems.ALL[name]()
    for gamma in (0.05, GAMMA, 300.0):
        solution = solve_sparse(cost, a, b, gamma=gamma).raise_if_failed()
        plan = np.asarray(solution.plan())
        np.testing.assert_allclose(plan.sum(1), a, atol=3e-10)
        np.testing.assert_allclose(plan.sum(0), b, atol=3e-10)
        # Feasible, of this form: no other plan is better.
        np.testing.assert_allclose(
            plan, slack(cost, solution.f, solution.g) / gamma, atol=1e-10
        )
        f, g = (np.where(w > 0, x, 0) for w, x in ((a, solution.f), (b, solution.g)))
        np.testing.assert_allclose(a @ f, b @ g, atol=1e-9)
        primal = (cost * plan).sum() + gamma / 2 * (plan**2).sum()
        np.testing.assert_allclose(solution.value, primal, atol=3e-9)
        assert int(solution.nonzero) == (plan > 0).sum()
    assert (plan > 0).mean() > 0.2  # a large gamma spreads


def test_plan_is_the_projection():
    solution = solve_sparse(COST, A, B, gamma=30.0)
    projected = dykstra(COST, A, B, 30.0, 4000)
    np.testing.assert_allclose(solution.plan(), projected, atol=1e-9)
    sharp = solve_sparse(COST, A, B, gamma=1e-3)
    exact = linear_program(COST, A, B)
    assert 0 <= float(sharp.transport_cost) - exact < 1e-5
    assert int(sharp.nonzero) <= 24 + 37


def differences(function, x, h, rtol=0.0, places=6):
    """Central differences in some entries of x, as {index: array}."""
    flat = [np.unravel_index(k, x.shape) for k in R.integers(x.size, size=places)]
    for i in flat:
        step = np.zeros_like(x)
        step[i] = h
        yield i, (function(x + step) - function(x - step)) / (2 * h)


TIGHT = {"gamma": 30.0, "tolerance": 1e-13}


def outputs(cost, a, b, gamma, **options):
    options = {"tolerance": 1e-13} | options
    s = solve_sparse(cost, a, b, gamma=gamma, **options)
    return jnp.concatenate([s.f, s.g, s.plan().ravel(), s.value[None]])


JACOBIAN = jax.jit(jax.jacfwd(outputs, argnums=(0, 1, 2, 3)))


def test_derivatives_against_differences():
    solve = jax.jit(outputs)
    inside = np.asarray(solve_sparse(COST, A, B, gamma=30.0).plan()) > 0
    slopes = JACOBIAN(COST, A, B, 30.0)
    for i, change in differences(lambda c: solve(c, A, B, 30.0), COST, 1e-5):
        np.testing.assert_allclose(slopes[0][:, *i], change, atol=2e-7)
    assert inside.any()
    i = tuple(np.argwhere(inside)[3])
    step = np.zeros_like(COST)
    step[i] = 1e-5
    change = solve(COST + step, A, B, 30.0) - solve(COST - step, A, B, 30.0)
    np.testing.assert_allclose(slopes[0][:, *i], change / 2e-5, atol=2e-7)
    # Masses move in pairs: totals must agree.
    step = np.zeros_like(A)
    step[2], step[11] = 1e-7, -1e-7
    change = solve(COST, A + step, B, 30.0) - solve(COST, A - step, B, 30.0)
    np.testing.assert_allclose(
        (slopes[1] @ step) / 1e-7, change / 2e-7, rtol=1e-5, atol=1e-6
    )
    change = (solve(COST, A, B, 30.01) - solve(COST, A, B, 29.99)) / 0.02
    np.testing.assert_allclose(slopes[3], change, atol=1e-6)


def test_reverse_mode_is_the_transpose():
    weights = R.normal(size=24 + 37 + 24 * 37 + 1)
    loss = lambda *args: jnp.vdot(weights, outputs(*args))
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(COST, A, B, 30.0)
    slopes = JACOBIAN(COST, A, B, 30.0)
    for ours, forward in zip(gradient, slopes, strict=True):
        np.testing.assert_allclose(
            ours, np.tensordot(weights, forward, 1), rtol=1e-8, atol=1e-8
        )
    # The value alone: the plan, and half its squares.
    solution = solve_sparse(COST, A, B, gamma=30.0)
    value = lambda c, gamma: solve_sparse(c, A, B, gamma=gamma).value
    by_cost, by_gamma = jax.grad(value, argnums=(0, 1))(COST, 30.0)
    np.testing.assert_allclose(by_cost, solution.plan(), atol=1e-12)
    np.testing.assert_allclose(by_gamma, (solution.plan() ** 2).sum() / 2, rtol=1e-10)


def test_penalised_marginals():
    rho_a, rho_b, gamma = 0.7, 2.0, 30.0
    options = {"rho_a": rho_a, "rho_b": rho_b}
    solution = solve_sparse(COST, A, 1.5 * B, gamma=gamma, **options).raise_if_failed()
    f, g = np.asarray(solution.f), np.asarray(solution.g)
    plan = slack(COST, f, g) / gamma
    np.testing.assert_allclose(solution.plan(), plan, atol=1e-14)
    np.testing.assert_allclose(plan.sum(1), A * np.exp(-f / rho_a), atol=1e-11)
    np.testing.assert_allclose(plan.sum(0), 1.5 * B * np.exp(-g / rho_b), atol=1e-11)
    np.testing.assert_allclose(solution.gap, 0, atol=1e-9)

    def negative(x):  # the dual, for a solver that knows nothing of ours
        f, g = x[:24], x[24:]
        s = np.maximum(f[:, None] + g[None] - COST, 0)
        wanted = A * np.exp(-f / rho_a), 1.5 * B * np.exp(-g / rho_b)
        value = rho_a * (A - wanted[0]).sum() + rho_b * (1.5 * B - wanted[1]).sum()
        value -= (s**2).sum() / (2 * gamma)
        slopes = wanted[0] - s.sum(1) / gamma, wanted[1] - s.sum(0) / gamma
        return -value, -np.concatenate(slopes)

    out = minimize(negative, np.zeros(61), jac=True, method="L-BFGS-B",
                   options={"maxiter": 5000, "ftol": 0, "gtol": 1e-12})  # fmt: skip
    np.testing.assert_allclose(np.concatenate([f, g]), out.x, atol=1e-6)
    np.testing.assert_allclose(solution.value, -out.fun, rtol=1e-12)
    at = lambda rho: outputs(COST, A, 1.5 * B, gamma, rho_a=rho, rho_b=rho_b)
    slope = jax.jvp(at, (rho_a,), (1.0,))[1]
    change = (at(rho_a + 1e-5) - at(rho_a - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, change, rtol=1e-6, atol=1e-8)
    # A large rho is equality; one side may be relaxed alone.
    near = solve_sparse(COST, A, B, gamma=gamma, rho_a=np.full(24, 1e7), rho_b=1e7)
    exact = solve_sparse(COST, A, B, gamma=gamma)
    np.testing.assert_allclose(near.plan(), exact.plan(), atol=1e-6)


def test_sparse_matrix():
    solution = solve_sparse(COST, A, B, gamma=GAMMA)
    plan = solution.plan()
    matrix = solution.plan_bcoo()
    assert matrix.nse == int(solution.nonzero) == np.sum(plan > 0)
    np.testing.assert_array_equal(matrix.todense(), plan)
    wide = jax.jit(lambda s: s.plan_bcoo(100))(solution)
    np.testing.assert_array_equal(wide.todense(), plan)
    np.testing.assert_allclose(wide @ np.ones(37), A, atol=1e-10)
    with pytest.raises(ValueError, match="nse must be at least"):
        solution.plan_bcoo(10)
    assert jnp.isnan(jax.jit(lambda s: s.plan_bcoo(10).data)(solution)).all()
    with pytest.raises(TypeError, match="nse must be given inside jit"):
        jax.jit(lambda s: s.plan_bcoo().data)(solution)
    weights = R.normal(size=100)
    loss = lambda c: jnp.vdot(
        weights, solve_sparse(c, A, B, gamma=GAMMA).plan_bcoo(100).data
    )
    rows, columns = np.nonzero(plan)
    dense = lambda c: jnp.vdot(
        weights[: len(rows)],
        solve_sparse(c, A, B, gamma=GAMMA).plan()[rows, columns],
    )
    np.testing.assert_allclose(jax.grad(loss)(COST), jax.grad(dense)(COST), atol=1e-12)
    y = R.normal(size=(37, 2))
    np.testing.assert_allclose(
        solution.barycentric(y), (plan @ y) / A[:, None], atol=1e-9
    )


def test_lanes_dtypes_and_starts():
    gammas = jnp.asarray([3.0, 30.0])
    lanes = jax.jit(jax.vmap(lambda gamma: solve_sparse(COST, A, B, gamma=gamma)))(
        gammas
    )
    for k, gamma in enumerate((3.0, 30.0)):
        one = solve_sparse(COST, A, B, gamma=gamma)
        np.testing.assert_allclose(lanes.plan()[k], one.plan(), atol=1e-10)
        np.testing.assert_allclose(lanes.value[k], one.value, rtol=1e-12)
    assert "2 CONVERGED" in repr(lanes)
    narrow = [x.astype(np.float32) for x in (COST, A, B)]
    narrow[2] = narrow[2] * (narrow[1].sum() / narrow[2].sum())
    single = solve_sparse(*narrow, gamma=30.0).raise_if_failed()
    assert single.f.dtype == jnp.float32
    np.testing.assert_allclose(single.plan(), one.plan(), atol=2e-6)
    half = solve_sparse(jnp.asarray(COST, jnp.bfloat16), gamma=30.0)
    assert half.f.dtype == jnp.float32
    assert half.converged
    again = solve_sparse(COST, A, B, gamma=30.0, init=(one.f, one.g))
    assert again.steps <= 1
    np.testing.assert_allclose(again.plan(), one.plan(), atol=1e-10)
    assert "30" in repr(one)


def test_forbidden_pairs_and_failures():
    cost = np.where(R.random(COST.shape) < 0.3, np.inf, COST)
    solution = solve_sparse(cost, A, B, gamma=GAMMA).raise_if_failed()
    plan = np.asarray(solution.plan())
    assert (plan[np.isinf(cost)] == 0).all()
    np.testing.assert_allclose(plan.sum(1), A, atol=1e-10)
    assert jnp.isfinite(solution.transport_cost)
    impossible = cost.copy()
    impossible[:3, 1:] = np.inf
    assert solve_sparse(impossible, A, B, gamma=GAMMA).status == Status.INFEASIBLE
    few = solve_sparse(COST, A, B, gamma=1e-3, max_steps=2)
    assert few.status == Status.MAX_STEPS
    assert jnp.isfinite(few.f).all()
    with pytest.raises(jaxsns.NotConvergedError):
        few.raise_if_failed()
    at = jax.jit(lambda a, gamma: solve_sparse(COST, a, B, gamma=gamma))
    assert at(A, -1.0).status == Status.INVALID_INPUT
    assert at(1.2 * A, 1.0).status == Status.MASS_MISMATCH
    assert jnp.isnan(at(A * np.nan, 1.0).plan()).all()
    assert jnp.isnan(at(A, np.nan).value)


def test_numbers_do_not_compile_again():
    solve = jax.jit(lambda gamma, tolerance: dataclasses.astuple(
        solve_sparse(COST, A, B, gamma=gamma, tolerance=tolerance))[1])  # fmt: skip
    solve(1.0, 1e-8)
    solve(2.0, 1e-6)
    assert solve._cache_size() == 1


def test_what_is_refused():
    for kind, message, options in (
        (TypeError, "gamma must be an array", {"gamma": "1"}),
        (ValueError, "gamma must be a scalar", {"gamma": np.ones(2)}),
        (ValueError, "gamma must be positive", {"gamma": 0.0}),
        (TypeError, "'reg' here; use gamma", {"gamma": 1.0, "reg": 0.1}),
        (TypeError, "'epsilon' here; use gamma", {"gamma": 1.0, "epsilon": 0.1}),
        (
            ValueError,
            r"f of init must have shape \[24\]",
            {"gamma": 1.0, "init": (B, B)},
        ),
        (TypeError, "init must be a pair", {"gamma": 1.0, "init": 1}),
    ):
        with pytest.raises(kind, match=message):
            solve_sparse(COST, A, B, **options)
    with pytest.raises(ValueError, match="equal totals"):
        solve_sparse(COST, A, 1.1 * B, gamma=1.0)
    with pytest.raises(AttributeError, match=r"use plan\(\)"):
        _ = solve_sparse(COST, A, B, gamma=GAMMA).matrix
