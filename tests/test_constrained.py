"""Linear constraints on a plan, against SciPy's solver and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jaxsns import Status, solve_constrained

R = np.random.default_rng(0)
N, M, EPSILON = 5, 6, 0.2
COST = np.random.default_rng(1).random((N, M))
A = np.full(N, 1 / N)
B = np.random.default_rng(2).random(M) + 0.3
B /= B.sum()
FIRST, SECOND, THIRD = np.random.default_rng(3).normal(size=(3, N, M))


@jax.jit
def found(cost, first, bounds, a=A):
    constraints = [
        (first, bounds[0], bounds[1]),
        (SECOND, bounds[2], bounds[3]),
        (THIRD, -np.inf, 10.0),
    ]
    return solve_constrained(cost, constraints, a, B, epsilon=EPSILON)


BOUNDS = np.array([0.1, 0.15, -0.3, -0.3])


def test_against_scipy():
    out = found(COST, FIRST, BOUNDS)
    assert out.converged
    plan = np.asarray(out.plan())

    def objective(p):
        p = np.maximum(p, 1e-300)
        value = (COST.ravel() @ p) + EPSILON * (p * (np.log(p) - 1)).sum()
        return value, COST.ravel() + EPSILON * np.log(p)

    rows = np.kron(np.eye(N), np.ones((1, M)))
    columns = np.kron(np.ones((1, N)), np.eye(M))[:-1]
    equal = np.vstack([rows, columns, SECOND.ravel()])
    right = np.concatenate([A, B[:-1], [-0.3]])
    first = FIRST.ravel()
    reference = minimize(
        objective, np.outer(A, B).ravel(), jac=True, method="SLSQP",
        bounds=[(1e-12, 1)] * (N * M), options={"maxiter": 2000, "ftol": 1e-15},
        constraints=[
            {"type": "eq", "fun": lambda p: equal @ p - right, "jac": lambda p: equal},
            {"type": "ineq", "fun": lambda p: [first @ p - 0.1, 0.15 - first @ p],
             "jac": lambda p: np.stack([first, -first])},
        ],
    )  # fmt: skip
    np.testing.assert_allclose(plan.ravel(), reference.x, atol=2e-6)
    np.testing.assert_allclose(out.value, reference.fun, atol=1e-8)
    np.testing.assert_allclose(plan.sum(1), A, atol=1e-9)
    np.testing.assert_allclose(out.moments[1], -0.3, atol=1e-8)
    assert 0.1 - 1e-8 <= out.moments[0] <= 0.15 + 1e-8
    assert out.multipliers[2] == 0


def test_martingale():
    x, y = np.linspace(-1, 1, 4), np.linspace(-2, 2, 7)
    a = np.full(4, 0.25)
    # Each row spreads evenly around its point: the columns of such a plan.
    spread = np.exp(-((x[:, None] - y[None]) ** 2))
    tilted = []
    for row, point in zip(spread, x, strict=True):
        moment = lambda t, r=row, p=point: np.log((r * np.exp(t * (y - p))).sum())
        tilted.append(minimize(moment, 0.0).x)
    rows = spread * np.exp(np.array(tilted) * (y[None] - x[:, None]))
    b = a @ (rows / rows.sum(1, keepdims=True))
    unit = np.eye(4)
    constraints = [(unit[i][:, None] * (y - x[i])[None], 0.0, 0.0) for i in range(4)]
    cost = np.abs(x[:, None] - y[None])
    out = solve_constrained(cost, constraints, a, b, epsilon=0.1).raise_if_failed()
    plan = np.asarray(out.plan())
    np.testing.assert_allclose(plan @ y, a * x, atol=1e-7)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-9)


def test_derivatives():
    weights = R.normal(size=(N, M))
    loss = lambda *args: jnp.vdot(weights, found(*args).plan())
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(COST, FIRST, BOUNDS)
    for k, x in enumerate((COST, FIRST, BOUNDS)):
        step = 1e-5 * R.normal(size=x.shape)
        if k == 2:
            step[2] = step[3]  # they are one number
        args = [COST, FIRST, BOUNDS]
        ends = []
        for sign in (1, -1):
            args[k] = x + sign * step
            ends.append(float(loss(*args)))
        ours = np.sum(slopes[k] * step)
        np.testing.assert_allclose(ours, (ends[0] - ends[1]) / 2, rtol=1e-4, atol=1e-10)


def test_failures():
    out = found(COST, FIRST, np.array([50.0, 60.0, -0.3, -0.3]))
    assert out.status in (Status.STALLED, Status.MAX_STEPS)
    assert jnp.isfinite(out.multipliers).all()
    for kind, message, constraints in (
        (ValueError, "at least one", []),
        (TypeError, r"constraints\[0\] must be", [FIRST]),
        (ValueError, "A of constraints", [(FIRST.T, 0.0, 1.0)]),
        (ValueError, "lower must not exceed upper", [(FIRST, 1.0, 0.0)]),
    ):
        with pytest.raises(kind, match=message):
            solve_constrained(COST, constraints, A, B, epsilon=EPSILON)
