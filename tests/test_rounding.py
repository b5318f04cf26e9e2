"""Rounded plans: exact marginals, the bound, and permutations against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from scipy.optimize import linear_sum_assignment

import jaxsns


def _algorithm_2(plan, a, b):
    """As in Altschuler, Weed, Rigollet 2017, with loops."""
    x = [min(a[i] / plan[i].sum(), 1) for i in range(a.size)]
    plan = np.diag(x) @ plan
    y = [min(b[j] / plan[:, j].sum(), 1) for j in range(b.size)]
    plan = plan @ np.diag(y)
    rows, columns = a - plan.sum(1), b - plan.sum(0)
    return plan + np.outer(rows, columns) / np.abs(rows).sum()


def _check(plan, rounded, a, b):
    rounded = np.asarray(rounded)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    assert (rounded >= 0).all()
    np.testing.assert_allclose(rounded.sum(1), a, rtol=0, atol=1e-15)
    np.testing.assert_allclose(rounded.sum(0), b, rtol=0, atol=1e-15)
    assert np.abs(rounded - plan).sum() <= 2 * error + 1e-14


@pytest.mark.parametrize("steps", [1, 4, 1000])
@pytest.mark.parametrize("name", ["uneven", "zero_masses"])
def test_a_rough_solution_becomes_feasible(name, steps):
    cost, a, b = problems.ALL[name]()
    epsilon = 0.05 * cost.std()
    solution = jaxsns.solve(cost, a, b, epsilon=epsilon, max_steps=steps)
    plan = np.asarray(solution.plan())
    _check(plan, jaxsns.round_to_feasible(plan, a, b), a, b)


def test_any_matrix_becomes_feasible_as_published():
    r = np.random.default_rng(0)
    plan = r.random((6, 9))
    a, b = (x / x.sum() for x in (r.random(6), r.random(9)))
    for scale in (1e-3, 0.02, 1.0):
        rounded = jaxsns.round_to_feasible(scale * plan, a, b)
        _check(scale * plan, rounded, a, b)
        if scale != 1e-3:
            expected = _algorithm_2(scale * plan, a, b)
            np.testing.assert_allclose(rounded, expected, rtol=0, atol=1e-15)
    _check(0 * plan, jaxsns.round_to_feasible(0 * plan, a, b), a, b)
    a[2], b[[0, 5]] = 0, 0
    a, b = a / a.sum(), b / b.sum()
    _check(plan, jaxsns.round_to_feasible(plan, a, b), a, b)


def test_rounding_is_differentiable_and_batches():
    r = np.random.default_rng(1)
    plans = jnp.asarray(r.random((3, 4, 5)))
    a, b = jnp.full(4, 1 / 4), jnp.full(5, 1 / 5)
    weights = jnp.asarray(r.normal(size=(4, 5)))
    loss = lambda p: jnp.vdot(weights, jaxsns.round_to_feasible(p, a, b))
    gradients = jax.vmap(jax.grad(loss))(plans)
    direction = jnp.asarray(r.normal(size=(4, 5)))
    for plan, gradient in zip(plans, gradients, strict=True):
        h = 1e-6
        reference = (loss(plan + h * direction) - loss(plan - h * direction)) / (2 * h)
        np.testing.assert_allclose(
            jnp.vdot(gradient, direction), reference, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("seed", range(4))
def test_permutation_has_the_most_mass(seed):
    plan = np.random.default_rng(seed).random((11, 11)) ** 3
    expected = linear_sum_assignment(plan, maximize=True)[1]
    got = jaxsns.round_to_permutation(plan)
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, expected)
    single = jaxsns.round_to_permutation(plan.astype(np.float32))
    np.testing.assert_array_equal(single, expected)


def test_permutation_of_a_plan_solves_the_assignment():
    cost, a, b = problems.assignment()
    plan = jaxsns.solve(cost, a, b, epsilon=1e-3).plan()
    got = jax.jit(jaxsns.round_to_permutation)(plan)
    np.testing.assert_array_equal(got, linear_sum_assignment(cost)[1])


def test_bad_traced_values_give_nan_or_minus_one():
    a, b = np.full(3, 1 / 3), np.full(3, 1 / 3)
    plan = np.full((3, 3), 1 / 9)
    bad = np.where(np.eye(3) > 0, np.nan, plan)
    round_to = jax.jit(jaxsns.round_to_feasible)
    assert np.isnan(round_to(bad, a, b)).all()
    assert np.isnan(round_to(-plan, a, b)).all()
    assert np.isnan(round_to(plan, -a, b)).all()
    assert np.isnan(round_to(plan, 2 * a, b)).all()
    assert (np.asarray(jax.jit(jaxsns.round_to_permutation)(bad)) == -1).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p, a: jaxsns.round_to_feasible(p[0], a, a), r"plan must have shape"),
        (lambda p, a: jaxsns.round_to_feasible(p, a[1:], a), r"a must have shape"),
        (lambda p, a: jaxsns.round_to_feasible(p, a, -a), "b must hold finite"),
        (lambda p, a: jaxsns.round_to_feasible(p, a, 2 * a), "equal totals"),
        (lambda p, a: jaxsns.round_to_feasible(-p, a, a), "plan must hold finite"),
        (lambda p, a: jaxsns.round_to_permutation(p[1:]), "plan must be square"),
        (lambda p, a: jaxsns.round_to_permutation(p * np.nan), "plan must hold"),
    ],
)
def test_bad_arguments_raise_with_their_name(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.full((3, 3), 1 / 9), np.full(3, 1 / 3))
