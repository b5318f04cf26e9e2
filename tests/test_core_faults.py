"""Ordinary inputs that once came back as NaN, stalled, or not as asked for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.special import logsumexp

import jaxsns
from jaxsns import Status

R = np.random.default_rng(0)
F4 = np.float32


def _far_clouds(distance=100.0):
    x, y = R.normal(size=(30, 2)), R.normal(size=(35, 2))
    return x.astype(F4), (y + distance).astype(F4)


def _reference(cost, epsilon, a=None, b=None):
    n, m = cost.shape
    a = np.full(n, 1 / n) if a is None else a
    b = np.full(m, 1 / m) if b is None else b
    f, g = references.sinkhorn(cost, a, b, epsilon, tolerance=1e-9)
    return f, g, references.plan(cost, f, g, epsilon)


@pytest.mark.parametrize("streamed", [False, True])
def test_clouds_far_apart_converge_in_float32(streamed):
    """Their potentials are 1e5 epsilon: in float32 nothing was left of epsilon."""
    x, y = _far_clouds()
    wide = [v.astype(float) for v in (x, y)]
    cost = ((wide[0][:, None] - wide[1][None]) ** 2).sum(-1)
    f, g, plan = _reference(cost, 0.5)

    @jax.jit
    def run(x, y):
        cloud = jaxsns.PointCloud(x, y, streamed=streamed)
        return jaxsns.solve(cloud, epsilon=jnp.asarray(0.5, F4))

    s = run(x, y)
    assert s.status == Status.CONVERGED
    assert s.f.dtype == F4
    assert np.abs(np.asarray(s.plan()) - plan).sum() < 1e-4
    np.testing.assert_allclose(s.f, f, rtol=3e-7)
    np.testing.assert_allclose(s.g, g, rtol=3e-7)
    np.testing.assert_allclose(s.transport_cost, (cost * plan).sum(), rtol=1e-6)
    got = jax.jit(jax.grad(lambda x: run(x, y).value))(x)
    right = 2 * (plan.sum(1)[:, None] * wide[0] - plan @ wide[1])
    np.testing.assert_allclose(got, right, rtol=1e-5)
    # The map of new points, and potentials there, are those of the clouds as they are.
    f_new = -0.5 * logsumexp((np.asarray(g)[None] - cost[:4]) / 0.5, axis=1)
    np.testing.assert_allclose(jaxsns.c_transform(s, x[:4]), f_new, rtol=3e-7)
    image = jaxsns.transport_map(s, x[:4])
    np.testing.assert_allclose(image, (plan[:4] @ wide[1]) * 30, rtol=1e-5)


def test_offsets_of_rows_and_columns_change_no_plan():
    cost = R.random((20, 24))
    rows, columns = 300 * R.random((20, 1)), 300 * R.random((1, 24))
    whole = (cost + rows + columns).astype(F4)
    _, _, plan = _reference(whole.astype(float), 0.05)
    s = jaxsns.solve(whole, epsilon=jnp.asarray(0.05, F4))
    assert s.status == Status.CONVERGED
    assert np.abs(np.asarray(s.plan()) - plan).sum() < 1e-4
    large = plan > 1e-3
    sums = (np.asarray(s.f)[:, None] + np.asarray(s.g)[None] - whole)[large]
    np.testing.assert_allclose(sums, 0.05 * np.log(plan[large]), atol=5e-3)
    axes = [
        (cost[:5, :4] + rows[:5] + columns[:, :4]).astype(F4),
        cost[:4, :6].astype(F4),
    ]
    grid = jaxsns.Grid(matrices=tuple(map(jnp.asarray, axes)))
    on_grid = jaxsns.solve(grid, epsilon=jnp.asarray(0.05, F4))
    dense = np.asarray(grid.dense().cost, float)
    assert on_grid.status == Status.CONVERGED
    _, _, plan = _reference(dense, 0.05)
    sums = on_grid.apply(jnp.arange(24, dtype=F4))
    np.testing.assert_allclose(sums, plan @ np.arange(24), rtol=1e-3)


def test_the_default_tolerance_can_be_reached():
    x, y = R.normal(size=(200, 8, 2)), R.normal(size=(200, 5, 2))
    cost = np.sqrt(((x[:, :, None] - y[:, None]) ** 2).sum(-1)).astype(F4)
    epsilon = (1e-3 * cost.max((1, 2))).astype(F4)
    solve = lambda c, e, tolerance=None: jaxsns.solve(c, epsilon=e, tolerance=tolerance)
    s = jax.jit(jax.vmap(solve))(cost, epsilon)
    assert (np.asarray(s.status) == Status.CONVERGED).mean() >= 0.99
    assert np.all(np.asarray(s.error) <= np.asarray(s.tolerance))
    assert np.all(np.asarray(s.tolerance) < 2e-3)
    strict = solve(cost[0], epsilon[0], jnp.asarray(1e-7, F4))
    assert strict.tolerance == F4(1e-7)
    assert strict.status in (Status.CONVERGED, Status.STALLED)


@pytest.mark.parametrize("shape", [(4, 7), (9, 5)])
@pytest.mark.parametrize("exact", ["columns", "rows"])
def test_a_fixed_number_of_sweeps_is_the_textbooks(shape, exact):
    cost = R.random(shape)
    problem = jaxsns.make_problem(cost, epsilon=0.05).formed()
    f, g = jaxsns.unrolled_sinkhorn(
        problem if exact == "columns" else problem.transposed(), 6
    )
    f, g = (f, g) if exact == "columns" else (g, f)
    options = jaxsns.SinkhornOptions(max_steps=6, early_stop=False, exact=exact)
    solve = lambda c: jaxsns.solve(c, epsilon=0.05, method=options)
    s = solve(cost)
    batch = jax.jit(jax.vmap(solve))(np.stack([cost, 2 * cost]))
    for got_f, got_g in ((s.f, s.g), (batch.f[0], batch.g[0])):
        np.testing.assert_allclose(got_f, f, atol=1e-14)
        np.testing.assert_allclose(got_g, g, atol=1e-14)
    rows, columns = s.marginal_errors
    assert (columns if exact == "columns" else rows) < 1e-14
    assert (rows if exact == "columns" else columns) > 1e-5
    np.testing.assert_allclose(s.error, rows + columns, rtol=1e-9)
    assert s.counts.sweeps == 6
    assert s.status == Status.MAX_STEPS


@pytest.mark.parametrize("dtype", [F4, np.float64])
def test_nothing_is_worth_moving(dtype):
    """Costs far above rho: the plan is 0, and all mass is destroyed and made."""
    x = R.normal(size=(6, 2)).astype(dtype)
    y = (R.normal(size=(7, 2)) + 20).astype(dtype)
    a, b = np.full(6, 0.25, dtype), np.full(7, 0.5, dtype)

    def run(x):
        return jaxsns.solve(
            jaxsns.PointCloud(x, y), a, b, epsilon=0.05, rho_a=1.0, rho_b=2.0
        )

    for solve in (run, jax.jit(run)):
        s = solve(x)
        assert s.status == Status.CONVERGED
        np.testing.assert_allclose(s.value, 1.5 + 2 * 3.5, rtol=1e-6)
        assert np.all(np.asarray(s.plan()) < 1e-30)
    slope = jax.jit(jax.grad(lambda x: run(x).value))(x)
    np.testing.assert_allclose(slope, 0, atol=1e-30)


def test_a_ramp_of_rho_can_start_from_the_last_potentials():
    cost = R.random((9, 8)).astype(F4)
    solve = jax.jit(
        lambda rho, init: jaxsns.solve(
            cost, epsilon=0.05, rho_a=rho, rho_b=rho, init=init
        )
    )
    for old, new in ((1.0, 1e-3), (1.0, 1e-4), (1e4, 0.1), (1e-3, 10.0)):
        first = solve(F4(old), (jnp.zeros(9, F4), jnp.zeros(8, F4)))
        warm = solve(F4(new), (first.f, first.g))
        assert warm.status == Status.CONVERGED
        cold = references.unbalanced(
            cost.astype(float), np.full(9, 1 / 9), np.full(8, 1 / 8), 0.05, new, new
        )
        np.testing.assert_allclose(warm.f, cold[0], atol=2e-4 * max(new, 0.05))


def test_conditioning_is_that_of_the_singular_values():
    for n, m, epsilon in ((14, 17, 0.05), (17, 14, 0.01)):
        x, y = R.normal(size=(n, 2)), R.normal(size=(m, 2))
        for streamed in (False, True):
            cloud = jaxsns.PointCloud(x, y, streamed=streamed)
            s = jaxsns.solve(cloud, epsilon=epsilon)
            plan = np.asarray(s.plan())
            scaled = plan / np.sqrt(plan.sum(1))[:, None] / np.sqrt(plan.sum(0))
            sigma = np.linalg.svd(scaled, compute_uv=False)[1]
            got = s.conditioning()
            np.testing.assert_allclose(got.gap, 1 - sigma**2, rtol=1e-6)
            np.testing.assert_allclose(got.error, max(s.error, 2.3e-16) / got.gap)


def test_penalties_of_all_sizes_are_never_nonfinite():
    # Penalties, totals of a over totals of b, and epsilon; 8 x 10 points, float32.
    rho = [1e-8, 1e-2, 1.0, 1e4, np.inf]
    cases = np.array(list(itertools.product(rho, rho, [1e-6, 1.0, 1e6], [0.01, 1, 10])))
    # Potentials of 1e7 are known in steps of 1, and epsilon is 1e-4: no plan is known.
    huge = [(1e6, 1e8, 1e3), (1e6, 1e6, 1e-3), (1e6, np.inf, 1e3), (np.inf, 1e6, 1e-6)]
    cases = np.concatenate([cases, [(*x, 1e-4) for x in huge]])
    cases = cases[np.isfinite(cases[:, :2]).any(axis=1)].astype("f")
    rng = np.random.default_rng(1)
    cost = np.square(rng.normal(size=(8, 1)) - rng.normal(size=(1, 10))).astype("f")
    a, b = (rng.random(k).astype("f") + np.float32(0.1) for k in (8, 10))
    a, b = a / a.sum(), b / b.sum()

    def one(case):
        s = jaxsns.solve(
            cost, a * case[2], b, rho_a=case[0], rho_b=case[1], epsilon=case[3]
        )
        return s.status, s.value, s.f, s.g

    status, value, f, g = jax.jit(lambda cases: jax.lax.map(one, cases))(cases)
    assert not np.any(np.asarray(status) == Status.NONFINITE)
    assert np.all(np.isfinite(value[: -len(huge)]))
    assert not np.any(status[-len(huge) :] == Status.CONVERGED)
    assert np.all(np.isfinite(f))
    assert np.all(np.isfinite(g))
    # As rho_b goes to 0 so does g, and f is known in one step.
    for k in np.flatnonzero((cases[:, 1] == rho[0]) & (cases[:, 3] >= 1)):
        rho_a, _, total, epsilon = cases[k].astype(float)
        soft = -epsilon * logsumexp(-cost.astype(float) / epsilon, axis=1)
        expected = (epsilon * np.log(total * a) + soft) / (1 + epsilon / rho_a)
        assert int(status[k]) == Status.CONVERGED
        np.testing.assert_allclose(f[k], expected, atol=2e-5 * epsilon)
        np.testing.assert_allclose(g[k], 0, atol=1e-6)
