"""Penalised plans against their optimality conditions, in NumPy, and differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import jaxsns
from jaxsns import Status
from jaxsns.penalised.penalties import GroupLasso, Laplacian
from jaxsns.penalised.solve import _iterated

R = np.random.default_rng(0)
N, M, CLASSES, EPSILON = 9, 11, 3, 0.3
LABELS = np.array([0, 0, 0, 1, 1, 2, 2, 2, -1])


def _given(dtype=np.float64):
    x, y = R.normal(size=(N, 2)), R.normal(size=(M, 2)) + 0.5
    a, b = R.random(N) + 0.2, R.random(M) + 0.2
    a[4] = 0
    cost = ((x[:, None] - y[None]) ** 2).sum(axis=-1)
    near = np.exp(-((x[:, None] - x[None]) ** 2).sum(axis=-1))
    arrays = cost, a / a.sum(), b / b.sum(), near, x, y
    return [v.astype(dtype) for v in arrays]


def _lasso_and_gradient(plan):
    value, gradient = 0.0, np.zeros_like(plan)
    for j in range(M):
        for c in range(CLASSES):
            norm = np.linalg.norm(plan[LABELS == c, j])
            value += norm
            gradient[LABELS == c, j] = plan[LABELS == c, j] / norm
    return value, gradient


def _laplacian_and_gradient(near, y, a, moved, plan):
    rows = np.flatnonzero(a > 0)
    place = np.zeros((N, 2))
    place[rows] = plan[rows] @ y / a[rows, None] - moved[rows]
    value, pull = 0.0, np.zeros((N, 2))
    for i in rows:
        for k in rows:
            alike = a[i] * a[k] * near[i, k]
            value += alike * np.sum((place[i] - place[k]) ** 2) / 2
            pull[i] += 2 * alike * (place[i] - place[k])
    gradient = np.zeros_like(plan)
    gradient[rows] = pull[rows] @ y.T / a[rows, None]
    return value, gradient


def _linear_value(cost, a, b):
    """Dual value of a balanced problem, from sweeps of a dense loop."""
    f, g = np.zeros(N), np.zeros(M)
    rows = a > 0
    for _ in range(4000):
        g = EPSILON * (
            np.log(b) - logsumexp((f[:, None] - cost)[rows] / EPSILON, axis=0)
        )
        f[rows] = EPSILON * (
            np.log(a[rows]) - logsumexp((g - cost[rows]) / EPSILON, axis=1)
        )
    plan = np.zeros((N, M))
    plan[rows] = np.exp((f[rows, None] + g - cost[rows]) / EPSILON)
    return plan, a[rows] @ f[rows] + b @ g - EPSILON * plan.sum()


KINDS = ["lasso", "laplacian", "displacement"]


def _penalty(kind, near, x, y, a, weight):
    if kind == "lasso":
        return GroupLasso(LABELS, CLASSES, weight)
    sources = x if kind == "displacement" else None
    return Laplacian(near, y, a, sources, weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_is_that_of_its_own_linearised_cost(kind):
    # For a convex penalty that is the minimum, and there is one only.
    cost, a, b, near, x, y = _given()
    weight = 0.4
    penalty = _penalty(kind, near, x, y, a, weight)
    found = jaxsns.solve_penalised(
        cost, penalty, a, b, epsilon=EPSILON, tolerance=1e-11, inner_tolerance=1e-12
    )
    assert found.raise_if_failed() is found
    plan = np.asarray(found.plan())
    if kind == "lasso":
        value, gradient = _lasso_and_gradient(plan)
    else:
        moved = x if kind == "displacement" else np.zeros_like(x)
        value, gradient = _laplacian_and_gradient(near, y, a, moved, plan)
    np.testing.assert_allclose(found.penalty, weight * value, rtol=1e-12)
    expected, dual = _linear_value(cost + weight * gradient, a, b)
    np.testing.assert_allclose(plan, expected, atol=1e-10)
    objective = dual - weight * np.sum(gradient * plan) + weight * value
    np.testing.assert_allclose(found.value, objective, rtol=1e-11)
    rows, columns = found.marginals()
    np.testing.assert_allclose(rows, a, atol=1e-11)
    np.testing.assert_allclose(columns, b, atol=1e-11)
    # And no other plan has a lower objective: those of other costs have a higher one.
    ours = np.asarray(jaxsns.solve(cost, a, b, epsilon=EPSILON).plan())
    entropy = lambda p: np.sum(p * (np.log(np.where(p > 0, p, 1)) - 1))
    lasso = _lasso_and_gradient if kind == "lasso" else None
    if lasso:
        for share in (0.01, 0.1):
            other = plan + share * (ours - plan)
            paid = np.sum(cost * other) + EPSILON * entropy(other)
            assert paid + weight * lasso(other)[0] > found.value


def test_a_penalty_of_nothing_and_a_linear_one_are_known():
    cost, a, b, _, _, _ = _given()
    plain = jaxsns.solve(cost, a, b, epsilon=EPSILON)
    none = jaxsns.solve_penalised(cost, lambda p: 0.0 * p.sum(), a, b, epsilon=EPSILON)
    np.testing.assert_allclose(none.plan(), plain.plan(), atol=1e-10)
    np.testing.assert_allclose(none.value, plain.value, rtol=1e-10)
    more = R.random((N, M))
    linear = jaxsns.solve_penalised(
        cost, lambda p: (p * more).sum(), a, b, epsilon=EPSILON
    )
    whole = jaxsns.solve(cost + more, a, b, epsilon=EPSILON)
    np.testing.assert_allclose(linear.plan(), whole.plan(), atol=1e-10)
    np.testing.assert_allclose(linear.value, whole.value, rtol=1e-10)


def test_relaxed_marginals_and_forbidden_pairs():
    cost, a, b, near, _, y = _given()
    cost[2, :4] = np.inf
    penalty = Laplacian(near, y, a, weight=0.2)
    found = jaxsns.solve_penalised(
        cost, penalty, a, 2 * b, epsilon=EPSILON, rho_a=1.0, rho_b=0.5, tolerance=1e-10
    )
    assert found.converged
    plan = np.asarray(found.plan())
    assert np.all(plan[2, :4] == 0)
    assert np.all(plan[4] == 0)
    _, gradient = _laplacian_and_gradient(near, y, a, np.zeros((N, 2)), plan)
    other = jaxsns.solve(
        cost + 0.2 * gradient, a, 2 * b, epsilon=EPSILON, rho_a=1.0, rho_b=0.5
    )
    np.testing.assert_allclose(plan, other.plan(), atol=1e-9)


@pytest.mark.parametrize("kind", ["lasso", "laplacian"])
def test_derivatives_are_those_of_differences(kind):
    cost, a, b, near, x, y = map(jnp.asarray, _given())
    weights = jnp.asarray(R.normal(size=(N, M)))

    @jax.jit
    def outputs(cost, a, weight, epsilon):
        penalty = _penalty(kind, near, x, y, a, weight)
        found = jaxsns.solve_penalised(
            cost,
            penalty,
            a,
            b,
            epsilon=epsilon,
            tolerance=1e-12,
            inner_tolerance=1e-13,
            method="sinkhorn",  # the derivative does not depend on it
        )
        return found.value, (found.plan() * weights).sum()

    at = cost, a, jnp.asarray(0.4), jnp.asarray(EPSILON)
    step = R.normal(size=a.shape) * (np.asarray(a) > 0)
    step -= np.asarray(a) * step.sum()
    direction = jnp.asarray(R.normal(size=cost.shape)), jnp.asarray(step), 0.7, 0.3
    moved = lambda t: [v + t * d for v, d in zip(at, direction, strict=True)]
    tangent = [jnp.asarray(d, v.dtype) for v, d in zip(at, direction, strict=True)]
    forward = jax.jit(lambda *ts: jax.jvp(outputs, at, ts)[1])(*tangent)
    h = 1e-5
    up, down = outputs(*moved(h)), outputs(*moved(-h))
    for k in range(2):
        expected = (up[k] - down[k]) / (2 * h)
        np.testing.assert_allclose(forward[k], expected, rtol=1e-6)
    _, pull = jax.vjp(outputs, *at)
    back = pull((jnp.asarray(0.0), jnp.asarray(1.0)))
    inner = sum(jnp.vdot(u, v) for u, v in zip(back, tangent, strict=True))
    np.testing.assert_allclose(inner, forward[1], rtol=1e-9)


def test_modes_and_dtypes_agree():
    cost, a, b, near, x, y = _given(np.float32)
    y16 = jnp.asarray(y, jnp.bfloat16)

    def solved(cost):
        penalty = Laplacian(near, y16, a, weight=0.3)
        return jaxsns.solve_penalised(cost, penalty, a, b, epsilon=EPSILON)

    plain, jitted = solved(cost), jax.jit(solved)(cost)
    lanes = jax.jit(jax.vmap(solved))(np.stack([cost, 2 * cost]))
    assert plain.f.dtype == np.float32
    assert plain.converged
    assert lanes.converged.all()
    np.testing.assert_allclose(jitted.plan(), plain.plan(), atol=1e-5)
    np.testing.assert_allclose(lanes.plan()[0], plain.plan(), atol=1e-5)
    wide = [v.astype(np.float64) for v in (cost, a, b, near, np.asarray(y16))]
    wide[1] /= wide[1].sum()
    wide[2] /= wide[2].sum()
    exact = jaxsns.solve_penalised(
        wide[0],
        Laplacian(wide[3], wide[4], wide[1], weight=0.3),
        wide[1],
        wide[2],
        epsilon=EPSILON,
    )
    # float32 stops at a change of the plan of 1e-3.
    change = np.abs(np.asarray(plain.plan(), np.float64) - exact.plan()).sum()
    assert change < 2e-3
    assert "CONVERGED" in repr(plain)
    assert "CONVERGED: 2" in repr(lanes)


def test_new_numbers_compile_nothing():
    cost, a, b, near, x, y = _given()
    solved = functools.partial(jaxsns.solve_penalised, cost, a=a, b=b)
    solved(GroupLasso(LABELS, CLASSES, 0.1), epsilon=EPSILON)
    before = _iterated._cache_size()
    solved(GroupLasso(LABELS[::-1], CLASSES, 0.2), epsilon=0.2, tolerance=1e-5)
    assert _iterated._cache_size() == before


def test_strong_penalties_end_honestly():
    cost, a, b, near, x, y = _given()
    far = jaxsns.solve_penalised(
        cost, GroupLasso(LABELS, CLASSES, 30.0), a, b, epsilon=0.01, max_steps=20
    )
    assert int(far.status) in (Status.MAX_STEPS, Status.STALLED)
    assert np.isfinite(far.plan()).all()
    with pytest.raises(jaxsns.NotConvergedError):
        far.raise_if_failed()
    nan = jaxsns.solve_penalised(
        cost, lambda p: jnp.nan * p.sum(), a, b, epsilon=EPSILON
    )
    assert int(nan.status) != Status.CONVERGED
    assert np.isnan(nan.value)


def test_bad_input_is_named():
    cost, a, b, *_ = _given()
    solve = functools.partial(jaxsns.solve_penalised, cost, epsilon=1.0)
    with pytest.raises(ValueError, match=r"penalty must map a plan \[9, 11\]"):
        solve(lambda p: p.sum(axis=0))
    with pytest.raises(TypeError, match="penalty must map a plan"):
        solve(0.3)
    with pytest.raises(TypeError, match="epsilon"):
        jaxsns.solve_penalised(cost, lambda p: p.sum(), reg=1.0)
    with pytest.raises(ValueError, match="a must have shape"):
        solve(lambda p: p.sum(), b)
