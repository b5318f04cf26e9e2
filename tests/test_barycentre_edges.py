"""Barycentres: one shared cost, one row or column, narrow dtypes, what is printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from jaxsns import Status
from jaxsns.barycentres import fixed_support_derivative, measures

K, N, M = 4, 7, 6
R = np.random.default_rng(3)
X, Y = R.random((N, 2)), R.random((M, 2))
COST = ((X[:, None] - Y[None]) ** 2).sum(-1)
MASSES = R.random((K, N)) + 0.1
MASSES[2, 4] = 0
MASSES /= MASSES.sum(1, keepdims=True)
WEIGHTS = np.array([0.1, 0.4, 0.3, 0.2])


def _loss(cost, masses, weights, epsilon):
    masses = masses / jnp.sum(masses, axis=1, keepdims=True)
    s = jaxsns.fixed_support_barycentre(
        cost, masses, weights, epsilon=epsilon, tolerance=1e-13
    )
    f = jnp.where(masses > 0, s.f, 0)
    return jnp.sum(jnp.sin(9 * s.mass)) + jnp.sum(f**2) + jnp.sum(jnp.cos(s.g))


def test_a_shared_cost_has_the_derivatives_of_copies_also_one_plan_at_a_time(
    monkeypatch,
):
    arguments = [jnp.asarray(x) for x in (COST, MASSES, WEIGHTS, 0.1)]
    r = np.random.default_rng(4)
    change = [jnp.asarray(r.normal(size=x.shape)) * x for x in arguments]

    def all_of(loss):
        both = jax.value_and_grad(loss, argnums=(0, 1, 2, 3))
        (value, slope), (_, second) = jax.jvp(both, arguments, change)
        return value, *slope, *second

    copies = lambda c, *rest: _loss(jnp.broadcast_to(c, (K, N, M)), *rest)
    want = jax.jit(lambda: all_of(copies))()
    # Plans one at a time, no inverse kept.
    monkeypatch.setattr(measures, "AT_ONCE", 1)
    monkeypatch.setattr(fixed_support_derivative, "KEPT", 1)
    got = jax.jit(lambda: all_of(_loss))()
    for one, other in zip(got, want, strict=True):
        scale = np.abs(other).max()
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8 * scale)


def test_memory_does_not_grow_with_measures_times_costs(monkeypatch):
    monkeypatch.setattr(measures, "AT_ONCE", 1)
    monkeypatch.setattr(fixed_support_derivative, "KEPT", 1)
    number, n = 64, 96

    def loss(cost, masses):
        s = jaxsns.fixed_support_barycentre(cost, masses, epsilon=0.1)
        return jnp.sum(s.mass**2), s.f

    shapes = [jax.ShapeDtypeStruct(s, float) for s in ((n, n), (number, n))]
    for function, most in ((loss, 4), (jax.grad(loss, has_aux=True), 14)):
        program = jax.jit(function).lower(*shapes).compile()
        needed = program.memory_analysis().temp_size_in_bytes
        # [K, n, m] would be 64 of the first.
        assert needed <= 8 * (most * n * n + 40 * number * 2 * n)


def test_potentials_too_far_apart_for_one_kernel():
    # Bumps at both ends: their potentials differ by more than e^100 on one kernel.
    grid = np.linspace(0, 1, N)
    cost = (grid[:, None] - grid[None]) ** 2
    masses = np.exp(-((grid[None] - np.array([[0.0], [1.0]])) ** 2) / 0.02) + 1e-3
    masses /= masses.sum(1, keepdims=True)
    weights, epsilon = np.array([0.5, 0.5]), 1 / 600
    b, f, g = references.barycentre(np.stack([cost] * 2), masses, weights, epsilon)
    apart = (f - epsilon * np.log(masses)) / epsilon
    assert np.abs(np.diff(apart, axis=0)).max() > 200
    s = jaxsns.fixed_support_barycentre(
        cost, masses, weights, epsilon=epsilon, tolerance=1e-10
    ).raise_if_failed()
    np.testing.assert_allclose(s.mass, b, atol=1e-8)
    for k in range(2):
        f, g = np.asarray(s.f[k]), np.asarray(s.g[k])
        error = references.error(cost, masses[k], np.asarray(s.mass), f, g, epsilon)
        assert error <= 1e-10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_row_or_one_column(dtype):
    """One column: all mass is there. One row: a softmax of the mean cost."""
    cost, weights = COST[:1].astype(dtype), WEIGHTS.astype(dtype)
    costs = cost[None] * np.linspace(1, 2, K).astype(dtype)[:, None, None]
    tight = 2e-5 if dtype == np.float32 else 1e-10

    @jax.jit
    def both(costs, weights):
        def row(costs, weights):
            ones = jnp.ones((K, 1), dtype)
            s = jaxsns.fixed_support_barycentre(
                costs, ones, weights, epsilon=jnp.asarray(0.3, dtype)
            )
            return jnp.sum(jnp.sin(9 * s.mass)), s

        def column(costs, weights):
            masses = jnp.full((K, M), 1 / M, dtype)
            s = jaxsns.fixed_support_barycentre(
                costs.mT, masses, weights, epsilon=jnp.asarray(0.3, dtype)
            )
            return jnp.sum(jnp.sin(9 * s.mass)), s

        return [
            jax.value_and_grad(f, (0, 1), has_aux=True)(costs, weights)
            for f in (row, column)
        ]

    def closed(costs, weights):
        mean = jnp.tensordot(weights / jnp.sum(weights), costs[:, 0], 1)
        return jnp.sum(jnp.sin(9 * jax.nn.softmax(-mean / 0.3)))

    wide = jnp.asarray(costs, float), jnp.asarray(weights, float)
    value, slopes = jax.value_and_grad(closed, (0, 1))(*wide)
    ((got, s), slope), ((one, t), flat) = both(costs, weights)
    assert bool(s.converged)
    assert bool(t.converged)
    np.testing.assert_allclose(got, value, rtol=tight)
    np.testing.assert_allclose(one, np.sin(9), rtol=tight)
    for x, y in zip(slope, slopes, strict=True):
        np.testing.assert_allclose(x, y, atol=20 * tight)
    for x in flat:
        np.testing.assert_allclose(x, 0, atol=20 * tight)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(3, 5, 1), (3, 1, 4), (1, 5, 1)])
def test_a_free_support_of_one_point_is_the_mean(sizes, dtype):
    """Also where each measure has one point; the gradient is that of the mean."""
    number, n, m = sizes
    r = np.random.default_rng(5)
    points = r.normal(size=(number, n, 2)).astype(dtype)
    masses = r.random((number, n)) + 0.1
    masses = (masses / masses.sum(1, keepdims=True)).astype(dtype)
    weights, start = WEIGHTS[:number].astype(dtype), np.zeros((m, 2), dtype)

    def loss(points, masses, weights):
        masses = masses / jnp.sum(masses, axis=1, keepdims=True)
        s = jaxsns.free_support_barycentre(
            points, masses, start, weights, epsilon=jnp.asarray(0.5, dtype)
        )
        return jnp.sum(jnp.sin(s.support)), s

    def closed(points, masses, weights):
        masses = masses / jnp.sum(masses, axis=1, keepdims=True)
        means = jnp.einsum("kn,knd->kd", masses, points)
        return m * jnp.sum(jnp.sin(weights / jnp.sum(weights) @ means))

    arguments = points, masses, weights
    wide = [jnp.asarray(x, float) for x in arguments]
    value, slopes = jax.value_and_grad(closed, (0, 1, 2))(*wide)
    whole = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))
    (got, s), slope = whole(*arguments)
    tight = 1e-5 if dtype == np.float32 else 1e-10
    assert int(s.status) == Status.CONVERGED
    np.testing.assert_allclose(got, value, atol=tight)
    for x, y in zip(slope, slopes, strict=True):
        np.testing.assert_allclose(x, y, atol=10 * tight)


def test_masses_of_a_narrow_softmax_have_equal_totals():
    logits = np.random.default_rng(6).normal(size=(K, 40))
    masses = jax.nn.softmax(jnp.asarray(logits, jnp.bfloat16), axis=1)
    totals = np.asarray(masses, float).sum(1)
    assert np.ptp(totals) > 1e-4
    cost = np.random.default_rng(7).random((40, 5)).astype(np.float32)
    solve = lambda masses: jaxsns.fixed_support_barycentre(
        cost, masses, epsilon=np.float32(0.1)
    )
    for s in (solve(masses), jax.jit(solve)(masses)):
        assert int(s.status) == Status.CONVERGED
        assert s.mass.dtype == jnp.float32
    equal = np.asarray(masses, float) / totals[:, None] * totals.mean()
    b = references.barycentre(np.stack([cost] * K).astype(float), equal, WEIGHTS, 0.1)
    s = jaxsns.fixed_support_barycentre(
        cost, masses, WEIGHTS.astype(np.float32), epsilon=np.float32(0.1)
    )
    np.testing.assert_allclose(s.mass, b[0], atol=2e-5)
    # In float32 such totals are no rounding.
    with pytest.raises(ValueError, match="equal totals"):
        solve(np.asarray(masses, np.float32))


def test_results_print_one_line():
    s = jaxsns.fixed_support_barycentre(COST, MASSES, WEIGHTS, epsilon=0.1)
    assert repr(s).startswith("Barycentre(4 measures, 7 x 6, float64, CONVERGED, err")
    assert "\n" not in repr(s)
    end = jaxsns.gaussian.barycentre(np.stack([np.eye(4), 4 * np.eye(4)]))
    assert repr(end).startswith(
        "GaussianBarycentre(4 x 4, float64, CONVERGED, residual="
    )
    assert repr(end).endswith(" steps)")
    assert jaxsns.check(end) is end
    assert end.raise_if_failed() is end
    batch = jax.vmap(jaxsns.gaussian.barycentre)(
        np.stack([np.stack([np.eye(4)] * 2), -np.stack([np.eye(4)] * 2)])
    )
    assert "batch=(2,), CONVERGED: 1, INVALID_INPUT: 1" in repr(batch)
    with pytest.raises(jaxsns.NotConvergedError, match="1 of 2"):
        batch.raise_if_failed()
    seen = []
    jax.eval_shape(
        lambda c: seen.append(repr(jaxsns.gaussian.barycentre(c))),
        np.stack([np.eye(4)] * 2),
    )
    assert seen == ["GaussianBarycentre(4 x 4, float64, traced)"]
