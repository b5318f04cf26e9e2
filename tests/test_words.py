"""Errors name the argument, the cause, and what another library's name is here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import Status, ragged

R = np.random.default_rng(0)
COST = np.random.default_rng(1).random((3, 4))


@pytest.mark.parametrize(
    ("kind", "message", "changes"),
    [
        (ValueError, "a must hold finite masses >= 0", {"a": COST[:, 0] + np.nan}),
        (ValueError, "a must have a positive total", {"a": np.zeros(3)}),
        (ValueError, "cost must be finite", {"cost": COST * np.nan}),
        (ValueError, "max_steps must be at most 2147483647", {"max_steps": 2**31}),
        (TypeError, "tolerance must be a number; got '1e-3'", {"tolerance": "1e-3"}),
        (ValueError, r"\+inf forbids a pair", {"cost": np.full((2, 2), 1e146)}),
        (TypeError, "'tau_a' here; use rho_a", {"tau_a": 0.9}),
        (TypeError, "'threshold' here; use tolerance", {"threshold": 1e-3}),
        (TypeError, "'reg' here; use epsilon", {"reg": 0.1}),
        (TypeError, "'numItermax' here; use max_steps", {"numItermax": 10}),
    ],
)  # fmt: skip
def test_the_cause_is_named(kind, message, changes):
    with pytest.raises(kind, match=message):
        jaxsns.solve(**({"cost": COST} | changes))


def test_other_doors_name_it_as_well():
    grid = jaxsns.Grid((np.arange(2.0), np.arange(3.0)))
    with pytest.raises(ValueError, match=r"a must have shape \[6\].*transposed"):
        jaxsns.solve(grid, np.ones((3, 2)) / 6, epsilon=1.0)
    with pytest.raises(TypeError, match="mask must be boolean"):
        ragged.masses(np.ones(3))
    np.testing.assert_array_equal(ragged.masses([True, False]), [1, 0])
    with pytest.raises(TypeError, match="tolerance must be a number"):
        jaxsns.fixed_support_barycentre(
            COST, np.full((2, 3), 1 / 3), epsilon=0.1, tolerance="1"
        )
    with pytest.raises(TypeError, match="'epsilon' here; give it to the solve"):
        jaxsns.PointCloud(COST, COST, epsilon=0.1)
    with pytest.raises(TypeError, match="'tau_a' here"):
        jaxsns.sinkhorn_divergence(COST, COST, tau_a=0.1)


def test_attributes_of_other_libraries_are_answered():
    solution = jaxsns.solve(COST, epsilon=0.1)
    for name, hint in {
        "matrix": r"use plan\(\)",
        "reg_ot_cost": "use value",
        "geom": "use problem.geometry",
    }.items():
        with pytest.raises(AttributeError, match=hint):
            getattr(solution, name)
    with pytest.raises(AttributeError, match="no attribute 'other'$"):
        _ = solution.other


@pytest.mark.parametrize("options", [{}, {"scale_cost": "mean"}])
def test_bad_costs_are_nonfinite_with_a_derived_epsilon(options):
    run = jax.jit(jax.vmap(lambda c: jaxsns.solve(c, **options).status))
    lanes = np.stack([COST, COST * np.nan, np.where(COST > 0.9, -np.inf, COST)])
    expected = [Status.CONVERGED, Status.NONFINITE, Status.NONFINITE]
    assert run(lanes).tolist() == expected


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_masses_of_low_precision(dtype):
    a, b = (jax.nn.softmax(jnp.asarray(R.normal(size=n), dtype)) for n in (30, 27))
    cost = jnp.asarray(R.random((30, 27)), jnp.float32)
    totals = [float(x.astype(jnp.float32).sum()) for x in (a, b)]
    assert abs(totals[0] - totals[1]) > 1e-5
    solve = lambda a, b: jaxsns.solve(cost, a, b, epsilon=0.1)
    solution = solve(a, b)
    assert solution.status == jax.jit(solve)(a, b).status == Status.CONVERGED
    wanted = np.asarray(a.astype(jnp.float32))
    np.testing.assert_allclose(solution.problem.a, wanted, rtol=1e-6)
    np.testing.assert_allclose(solution.problem.b.sum(), wanted.sum(), rtol=1e-6)
    plan = jaxsns.round_to_feasible(solution.plan(), a, b)
    np.testing.assert_allclose(plan.sum(1), wanted, atol=1e-6)
    # More than rounding is still refused, and the derivative is that of float32.
    with pytest.raises(ValueError, match="equal totals"):
        solve(a, b * dtype(1.25))
    gradient = jax.grad(lambda b: solve(a.astype(jnp.float32), b).value)
    low = gradient(b)
    full = gradient(solution.problem.b)
    np.testing.assert_allclose(low.astype(jnp.float32), full, rtol=2e-2, atol=2e-2)
    weights = ragged.masses(jnp.ones(30, bool), a)
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-6)


def test_arrays_in_buckets_come_back_in_order():
    xs = [R.normal(size=(n, 2)) for n in (5, 11, 7, 8, 30)]
    ys = [R.normal(size=(n,)) for n in (9, 3, 12, 3, 3)]
    buckets = ragged.bucketed(xs, ys)
    shapes = [[x.shape[:2] for x in b.arrays] for b in buckets]
    assert shapes == [[(1, 8), (1, 8)], [(2, 8), (2, 12)], [(1, 12), (1, 8)],
                      [(1, 32), (1, 8)]]  # fmt: skip
    sums = ragged.restored(buckets, [b.arrays[0].sum(1) for b in buckets])
    np.testing.assert_allclose(np.stack(sums), [x.sum(0) for x in xs])
    counts = ragged.restored(buckets, [b.masks[1].sum(1) for b in buckets])
    assert [int(k) for k in counts] == [9, 3, 12, 3, 3]
    even = ragged.bucketed(xs, sizes=(16, 64), lanes=3)
    assert [b.arrays[0].shape[:2] for b in even] == [(3, 16), (3, 16), (3, 64)]
    assert [b.indices.tolist() for b in even] == [[0, 1, 2], [3], [4]]
    with pytest.raises(ValueError, match="sizes must reach the longest array, 30"):
        ragged.bucketed(xs, sizes=(16,))
    with pytest.raises(ValueError, match="all of one length"):
        ragged.bucketed(xs, ys[:2])


def test_hints_name_what_the_called_function_has():
    for call, words in [
        (
            lambda: jaxsns.solve_exact(COST, reg=1.0),
            "the arguments are cost, a, b, gap",
        ),
        (lambda: jaxsns.Grid((np.arange(3.0),), epsilon=0.1), "give it to the solve"),
        (
            lambda: jaxsns.sinkhorn_divergence(COST, COST, foo=1),
            "^sinkhorn_divergence()",
        ),
        (lambda: jaxsns.solve_quadratic(COST, COST, max_iterations=3), "use max_steps"),
        (lambda: jaxsns.soft_sort(COST[0], reg=0.1), "use epsilon"),
    ]:
        with pytest.raises(TypeError, match=words):
            call()
    with pytest.raises(AttributeError, match="it has no entropy"):
        _ = jaxsns.solve_exact(COST).reg_ot_cost
