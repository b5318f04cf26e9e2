"""Unbalanced, semi-relaxed and partial transport, forbidden pairs, padding."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references
from scipy.optimize import minimize

import jaxsns
from jaxsns import Status, ragged

COST, A, B = (np.asarray(x) for x in problems.uneven())
N, M = COST.shape
R = np.random.default_rng(7)
MIXED = np.where(R.random(M) < 0.5, np.inf, 0.3)
# Always arrays, so that one program serves all.
RHOS = {
    "unbalanced": (np.full(N, 0.5), np.full(M, 2.0)),
    "semi": (np.full(N, np.inf), np.full(M, 0.7)),
    "per atom": (np.where(np.arange(N) < 3, np.inf, R.random(N) + 0.1), MIXED),
    "tight": (np.full(N, 50.0), np.full(M, 50.0)),
}


def _solved(rho_a, rho_b, b=1.3 * B, **options):
    given = {"epsilon": 0.2, "tolerance": 1e-12, **options}
    return jaxsns.solve(COST, A, b, rho_a=rho_a, rho_b=rho_b, **given)


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
def test_potentials_and_plan_against_a_dense_loop(method):
    run = jax.jit(lambda *x: _solved(*x, method=method))
    for name, (rho_a, rho_b) in RHOS.items():
        b = 0.9 * B if name == "per atom" else 1.3 * B
        f, g = references.unbalanced(COST, A, b, 0.2, rho_a, rho_b)
        solution = run(rho_a, rho_b, b)
        assert int(solution.status) == Status.CONVERGED, name
        np.testing.assert_allclose(solution.f, f, atol=1e-9)
        np.testing.assert_allclose(solution.g, g, atol=1e-9)
        plan = references.plan(COST, f, g, 0.2)
        np.testing.assert_allclose(solution.plan(), plan, atol=1e-11)
        assert abs(float(solution.gap)) < 1e-10


def test_the_value_is_the_minimum_of_the_primal():
    cost, a, b = COST[:5, :4], A[:5], B[:4]
    rho_a, rho_b, epsilon = 0.5, 1.5, 0.3

    def primal(log):
        p = np.exp(log.reshape(5, 4))
        r, c = p.sum(1), p.sum(0)
        kl = lambda x, y: np.sum(x * np.log(x / y) - x + y)
        entropy = np.sum(p * (np.log(p) - 1))
        paid = rho_a * kl(r, a) + rho_b * kl(c, b)
        return np.sum(cost * p) + epsilon * entropy + paid

    def slope(log):
        p = np.exp(log.reshape(5, 4))
        forces = rho_a * np.log(p.sum(1) / a)[:, None] + rho_b * np.log(p.sum(0) / b)
        return (p * (cost + epsilon * np.log(p) + forces)).ravel()

    start = np.full(20, -3.0)
    found = minimize(primal, start, jac=slope, method="BFGS", options={"gtol": 1e-12})
    solution = jaxsns.solve(cost, a, b, epsilon=epsilon, rho_a=rho_a, rho_b=rho_b)
    # The minimiser stops where the functional is flat to rounding.
    np.testing.assert_allclose(solution.value, found.fun, atol=5e-9)
    np.testing.assert_allclose(solution.primal_value, found.fun, atol=5e-9)
    plan = np.exp(found.x.reshape(5, 4))
    np.testing.assert_allclose(solution.plan(), plan, atol=1e-5)


def test_one_atom_has_a_closed_form():
    # p minimises c p + eps p (log p - 1) + r1 KL(p | a) + r2 KL(p | b).
    c, eps, r1, r2, a, b = 0.7, 0.1, 0.4, 2.0, 3.0, 0.5
    log = (r1 * np.log(a) + r2 * np.log(b) - c) / (eps + r1 + r2)
    solution = jaxsns.solve([[c]], [a], [b], epsilon=eps, rho_a=r1, rho_b=r2)
    np.testing.assert_allclose(solution.plan()[0, 0], np.exp(log), rtol=1e-9)


def test_infinite_rho_is_equality():
    balanced = jaxsns.solve(COST, A, B, epsilon=0.1, tolerance=1e-12)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def run(rho):
        options = {"rho_a": rho, "rho_b": rho, "tolerance": 1e-12}
        solution = jaxsns.solve(COST, A, B, epsilon=0.1, **options)
        return solution.value, solution

    slope, traced = run(jnp.asarray(jnp.inf))
    np.testing.assert_allclose(traced.f, balanced.f, atol=1e-10)
    np.testing.assert_allclose(traced.value, balanced.value, rtol=1e-12)
    near = run(jnp.asarray(1e7))[1]
    np.testing.assert_allclose(near.plan(), balanced.plan(), atol=1e-7)
    assert float(slope) == 0


@pytest.mark.parametrize("tau", [0.9, 0.99, 0.999])
@pytest.mark.parametrize("epsilon", [1e-1, 1e-2, 1e-3])
def test_newton_takes_hardly_more_steps_than_for_the_balanced_twin(tau, epsilon):
    r = np.random.default_rng(3)
    x, y = r.random((60, 2)), r.random((70, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    cost /= cost.max()
    balanced = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-8, method="newton")
    rho = epsilon * tau / (1 - tau)
    options = {"epsilon": epsilon, "tolerance": 1e-8, "method": "newton"}
    soft = jaxsns.solve(cost, rho_a=rho, rho_b=rho, **options)
    assert soft.converged
    steps = int(soft.counts.newton_steps)
    assert steps <= int(balanced.counts.newton_steps) + 5


def test_sweeping_rho_and_share_compiles_nothing():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(rho):
        return jaxsns.solve(COST, A, B, epsilon=0.2, rho_a=rho, rho_b=2 * rho).value

    @jax.jit
    @chex.assert_max_traces(n=1)
    def partly(share):
        return jaxsns.solve_partial(COST, A, B, epsilon=0.2, share=share).value

    assert all(np.isfinite(run(rho)) for rho in (0.1, 1.0, np.inf))
    assert all(np.isfinite(partly(share)) for share in (0.1, 0.5, 1.0))


# Partial transport.


@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_the_published_partial_layer(share):
    cost = COST[:, :8] / COST.max()
    expected = references.semi_relaxed_scaling(cost, share, 0.1, 1.0)
    found = jaxsns.solve_partial(
        cost, share=share, epsilon=0.1, rho_b=1.0, tolerance=1e-13
    )
    assert found.converged
    np.testing.assert_allclose(found.plan(), expected, atol=1e-11)
    np.testing.assert_allclose(found.plan().sum(), share, rtol=1e-11)


def test_partial_transport_against_the_primal():
    cost, a, b = COST[:4, :3], np.full(4, 0.2), np.full(3, 0.4)
    share, epsilon = 0.5, 0.3
    moved = share * a.sum()

    def primal(x):
        p, s, t = np.exp(x[:12]).reshape(4, 3), np.exp(x[12:16]), np.exp(x[16:])
        entropy = sum(np.sum(z * (np.log(z) - 1)) for z in (p, s, t))
        return np.sum(cost * p) + epsilon * entropy

    def constraints(x):
        p, s, t = np.exp(x[:12]).reshape(4, 3), np.exp(x[12:16]), np.exp(x[16:])
        return np.r_[p.sum(1) + s - a, p.sum(0) + t - b, p.sum() - moved]

    found = minimize(
        primal,
        np.full(19, -3.0),
        method="SLSQP",
        constraints={"type": "eq", "fun": constraints},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    solution = jaxsns.solve_partial(cost, a, b, share=share, epsilon=epsilon)
    assert solution.converged
    plan = np.exp(found.x[:12]).reshape(4, 3)
    np.testing.assert_allclose(solution.plan(), plan, atol=1e-6)
    rows, columns = solution.marginals()
    assert np.all(np.asarray(rows) <= a + 1e-10)
    assert np.all(np.asarray(columns) <= b + 1e-10)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_share_one_is_the_whole_problem(rho):
    options = {"epsilon": 0.1, "tolerance": 1e-12}
    whole = jaxsns.solve(COST, A, B, rho_b=rho, **options)

    def run(share, cost):
        found = jaxsns.solve_partial(cost, A, B, share=share, rho_b=rho, **options)
        return jnp.vdot(jnp.sin(cost), found.plan()), found

    gradient = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True))
    slopes, found = gradient(1.0, jnp.asarray(COST))
    assert found.converged
    np.testing.assert_allclose(found.plan(), whole.plan(), atol=1e-11)
    assert all(np.all(np.isfinite(x)) for x in slopes)


def test_partial_problems_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\]; got 1.5"):
        jaxsns.solve_partial(COST, A, B, share=1.5, epsilon=0.1)
    with pytest.raises(ValueError, match="give rho_a or rho_b only"):
        jaxsns.solve_partial(COST, A, B, share=0.5, epsilon=0.1, rho_a=1, rho_b=1)
    run = jax.jit(lambda s: jaxsns.solve_partial(COST, A, B, share=s, epsilon=0.1))
    assert int(run(1.5).status) == Status.INVALID_INPUT
    assert np.isnan(np.asarray(run(0.0).plan())).all()
    assert "PartialSolution(25 x 38" in repr(run(0.5))


# Derivatives: forward, reverse and second order, for every family and every number.

FAMILIES = {  # balanced: test_gradients.py
    "semi": (np.inf, 0.5, None),  # the program of the next one
    "unbalanced": (0.4, 0.8, None),
    "partial": (None, None, 0.6),
    "partial semi": (None, 0.5, 0.6),
}


def _parameters(family):
    rho_a, rho_b, share = FAMILIES[family]
    r = np.random.default_rng(11)
    numbers = {
        "x": r.random((9, 2)),
        "y": r.random((7, 2)),
        "cost": 0.1 * r.random((9, 7)),
        "a": r.random(9) + 0.2,
        "b": 1.2 * (r.random(7) + 0.2),
        "epsilon": 0.07,
        "rho_a": rho_a,
        "rho_b": rho_b,
        "share": share,
    }
    # All of one kind: a Python number has a weak type, and another program.
    return {k: jnp.asarray(v, float) for k, v in numbers.items() if v is not None}


def _solution(p):
    cost = jaxsns.costs.sqeuclidean(p["x"], p["y"]) + p["cost"]
    names = ("epsilon", "rho_a", "rho_b", "share")
    given = {k: p[k] for k in names if k in p}
    run = jaxsns.solve_partial if "share" in p else jaxsns.solve
    return run(cost, p["a"], p["b"], tolerance=1e-14, **given)


WEIGHTS = jnp.asarray(np.random.default_rng(14).normal(size=(9, 7)))


def _outputs(p):
    s = _solution(p)
    return jnp.stack([jnp.vdot(WEIGHTS, jnp.sin(5 * s.plan())), s.value])


_forward = jax.jit(lambda p, d: jax.jvp(_outputs, (p,), (d,)))
_reverse = jax.jit(jax.jacrev(_outputs))
_gradient = jax.grad(lambda p: _solution(p).value)
_second = jax.jit(lambda p, d: jax.jvp(_gradient, (p,), (d,)))


def _ends(function, p, d, h=1e-5):
    """Values at both ends of a small step, for a central difference."""
    for sign in (1, -1):
        yield function(jax.tree.map(lambda u, v: u + sign * h * v, p, d), d)[0]  # noqa: B023


@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_of_plan_and_value(family):
    p = _parameters(family)
    r = np.random.default_rng(12)
    slopes = _reverse(p)
    for name in p:
        d = {k: jnp.zeros_like(v) for k, v in p.items()}
        d[name] = jnp.asarray(r.normal(size=p[name].shape))
        above, below = _ends(_forward, p, d)
        expected = (above - below) / 2e-5
        found = _forward(p, d)[1]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        along = jnp.tensordot(slopes[name], d[name], d[name].ndim)
        np.testing.assert_allclose(along, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["semi", "unbalanced", "partial semi"])
def test_second_derivatives_of_the_value(family):
    p = _parameters(family)
    r = np.random.default_rng(13)
    d = {k: jnp.asarray(r.normal(size=v.shape)) for k, v in p.items()}
    above, below = _ends(_second, p, d)
    found = _second(p, d)[1]
    for name in p:
        expected = (above[name] - below[name]) / 2e-5
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)


# Zero masses, masks, forbidden pairs.


def test_an_atom_without_mass_changes_nothing():
    """Anywhere: potentials of the others, value, gradient and Hessian are the same."""
    rows, columns = np.array([0, 5, 9]), np.array([2, 8])
    r = np.random.default_rng(5)
    full_a, full_b = r.random(10) + 0.1, r.random(9) + 0.1
    full_a[rows], full_b[columns] = 0, 0
    full_a, full_b = full_a / full_a.sum(), full_b / full_b.sum()
    cost = jnp.asarray(r.random((10, 9)))
    keep_a, keep_b = full_a > 0, full_b > 0

    @jax.jit
    def everything(cost, a, b, rho):
        def value(cost):
            options = {"rho_a": rho, "rho_b": rho, "tolerance": 1e-14}
            s = jaxsns.solve(cost, a, b, epsilon=0.1, **options)
            return s.value, (s.value, s.f, s.g)

        gradient = jax.grad(value, has_aux=True)
        (slope, found), (along, _) = jax.jvp(gradient, (cost,), (cost**2,))
        return *found, slope, along

    pairs = np.ix_(keep_a, keep_b)
    for rho in (np.inf, 0.5):
        full = everything(cost, full_a, full_b, rho)
        less = everything(cost[pairs], full_a[keep_a], full_b[keep_b], rho)
        cut = (..., keep_a, keep_b, pairs, pairs)
        for x, y, where in zip(full, less, cut, strict=True):
            np.testing.assert_allclose(np.asarray(x)[where], y, atol=1e-12)
        assert np.all(np.asarray(full[3])[rows] == 0)
        assert np.all(np.isfinite(full[4]))


def test_a_padded_batch_equals_the_loop():
    r = np.random.default_rng(6)
    clouds = [r.normal(size=(k, 2)) for k in (5, 9)]
    others = [r.normal(size=(k, 2)) for k in (8, 4)]
    x, mask_x = ragged.pad(clouds)
    y, mask_y = ragged.pad(others, length=10)
    assert x.shape == (2, 9, 2)
    assert y.shape == (2, 10, 2)

    def one(x, y, a, b, rho):
        cost = jaxsns.costs.sqeuclidean(x, y)
        options = {"rho_a": rho, "rho_b": rho, "tolerance": 1e-13}
        s = jaxsns.solve(cost, a, b, epsilon=0.1, relative_to="mean", **options)
        return s.transport_cost, s.converged

    run = jax.value_and_grad(one, has_aux=True)
    batch = jax.jit(jax.vmap(run, in_axes=(0, 0, 0, 0, None)))
    alone = jax.jit(run)
    for rho in (np.inf, 1.0):
        masses = ragged.masses(mask_x), ragged.masses(mask_y)
        (costs, converged), slopes = batch(x, y, *masses, rho)
        assert np.all(converged)
        for k, (p, q) in enumerate(zip(clouds, others, strict=True)):
            a, b = np.full(len(p), 1 / len(p)), np.full(len(q), 1 / len(q))
            (value, _), slope = alone(p, q, a, b, rho)
            np.testing.assert_allclose(costs[k], value, rtol=1e-10)
            np.testing.assert_allclose(slopes[k, : len(p)], slope, atol=1e-9)
            assert np.all(np.asarray(slopes[k, len(p) :]) == 0)


def test_padding_says_what_does_not_fit():
    with pytest.raises(ValueError, match="length must be at least 3; got 2"):
        ragged.pad([np.ones(3), np.ones(1)], length=2)
    with pytest.raises(ValueError, match="all but their first axis"):
        ragged.pad([np.ones((3, 2)), np.ones((3, 1))])


def test_forbidden_pairs_get_no_mass():
    r = np.random.default_rng(8)
    cost = np.where(r.random(COST.shape) < 0.4, np.inf, COST)
    large = np.where(np.isinf(cost), 1e3, cost)
    f, g = references.sinkhorn(large, A, B, 0.5)
    solution = jaxsns.solve(cost, A, B, epsilon=0.5, tolerance=1e-12)
    assert solution.converged
    np.testing.assert_allclose(solution.f, f, atol=1e-9)
    assert np.all(np.asarray(solution.plan())[np.isinf(cost)] == 0)
    slope = jax.jit(
        jax.grad(lambda c: jaxsns.solve(c, A, B, epsilon=0.5).transport_cost)
    )(jnp.asarray(cost))
    assert np.all(np.isfinite(slope))
    assert np.all(np.asarray(slope)[np.isinf(cost)] == 0)


def test_an_infeasible_problem_is_recognised():
    blocks = np.array(COST)
    blocks[:12, 18:], blocks[12:, :18] = np.inf, np.inf
    alone = np.array(COST)
    alone[4] = np.inf
    for cost in (blocks, alone):
        solution = jaxsns.solve(cost, A, B, epsilon=0.5)
        assert int(solution.status) == Status.INFEASIBLE
        relaxed = jaxsns.solve(cost, A, B, epsilon=0.5, rho_a=1.0, rho_b=1.0)
        assert relaxed.converged
    # The same without the excess is fine.
    a = np.array(A)
    a[:12] *= B[:18].sum() / a[:12].sum()
    a[12:] *= B[18:].sum() / a[12:].sum()
    assert jaxsns.solve(blocks, a, B, epsilon=0.5).converged


@pytest.mark.parametrize(
    ("rho_a", "rho_b", "b", "fine"),
    [
        (None, None, 2 * B, False),
        (None, 1.0, 2 * B, True),
        (1.0, None, 2 * B, True),
        (None, np.where(np.arange(M) < 30, np.inf, 1.0), 9 * B, False),
        (None, np.where(np.arange(M) < 3, np.inf, 1.0), B, True),
    ],
)
def test_totals_that_no_plan_can_have(rho_a, rho_b, b, fine):
    run = lambda rho_b, b: jaxsns.solve(
        COST, A, b, epsilon=0.5, rho_a=rho_a, rho_b=rho_b
    )
    if fine:
        assert run(rho_b, b).converged
        return
    with pytest.raises(ValueError, match=r"equal totals|must be met exactly"):
        run(rho_b, b)
    if rho_b is not None:
        rho_b = jnp.asarray(rho_b)
    assert int(jax.jit(run)(rho_b, b).status) == Status.MASS_MISMATCH


def test_bad_penalties_say_so():
    run = jax.jit(lambda rho: _solved(1.0, rho))
    for rho in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="rho_b must be positive, inf for equal"):
            _solved(1.0, rho)
        assert int(run(rho).status) == Status.INVALID_INPUT
    with pytest.raises(ValueError, match=r"rho_a must be a scalar or have shape \[n\]"):
        _solved(np.ones(3), None)
    with pytest.raises(ValueError, match="'sns' solves balanced problems only"):
        _solved(1.0, 1.0, method="sns")


def test_rho_epsilon_and_share_in_a_batch():
    rhos, epsilons = jnp.asarray([0.3, 2.0, np.inf]), jnp.asarray([0.5, 0.1, 0.2])
    run = lambda rho, e: jaxsns.solve(COST, A, B, epsilon=e, rho_a=rho, rho_b=rho)
    batch = jax.jit(jax.vmap(run))(rhos, epsilons)
    assert np.all(batch.converged)
    for k in range(3):
        np.testing.assert_allclose(batch.f[k], run(rhos[k], epsilons[k]).f, atol=1e-9)
    shares = jnp.asarray([0.2, 0.7, 1.0])
    part = lambda share: jaxsns.solve_partial(COST, A, B, epsilon=0.2, share=share)
    batch = jax.jit(jax.vmap(part))(shares)
    np.testing.assert_allclose(batch.plan().sum((1, 2)), shares, rtol=1e-9)
    np.testing.assert_allclose(batch.f[1], part(0.7).f, atol=1e-9)


@functools.partial(jax.jit, static_argnums=0)
def _penalised(method, cost, a, b, epsilon, rho_a, rho_b):
    given = {"epsilon": epsilon, "rho_a": rho_a, "rho_b": rho_b, "method": method}
    return jaxsns.solve(cost, a, b, tolerance=1e-10, **given)


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
@pytest.mark.parametrize("side", ["rows", "columns", "both", "uneven"])
def test_large_penalties_with_unequal_totals_take_few_steps(method, side):
    """The constant of the potentials, nearly free, is set rather than walked to."""
    cost, a, b = problems.uneven()
    a, epsilon = 3 * a, 0.5
    weak = np.linspace(1, 3, 24) if side == "uneven" else np.ones(24)
    # Always traced arrays, so that one program serves all sides.
    rho_a = np.full(24, np.inf) if side == "columns" else 2e4 * weak
    rho_b = np.full(37, np.inf if side == "rows" else 1e4)
    s = _penalised(method, cost, a, b, epsilon, rho_a, rho_b)
    assert s.converged
    assert int(s.counts.sweeps) < 60  # more than 1,000 without it
    plan = references.plan(cost, s.f, s.g, epsilon)
    np.testing.assert_allclose(plan.sum(1), a * np.exp(-s.f / rho_a), rtol=1e-8)
    np.testing.assert_allclose(plan.sum(0), b * np.exp(-s.g / rho_b), rtol=1e-8)
