"""Lanes that sweep with momentum: its rate, what it saves, what is doubted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from jaxsns.solvers.batched import joint_sinkhorn
from jaxsns.solvers.sinkhorn.acceleration import best_rate

R = np.random.default_rng(3)


def _uniform(n: int) -> np.ndarray:
    return np.full(n, 1 / n)


@pytest.mark.parametrize("rho", [0.3, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_the_best_rate_is_read_off_the_decay_of_a_linear_iteration(rho, share):
    """x -> x + (1 + q)^2 (S x - x) + q^2 (x - x_before), S with eigenvalue rho."""
    root = np.sqrt(1 - rho)
    best = (1 - root) / (1 + root)
    q = share * best

    def decay(q: float, eigenvalue: float = rho) -> float:
        matrix = [[1 - (1 + q) ** 2 * (1 - eigenvalue) + q**2, -(q**2)], [1, 0]]
        return np.max(np.abs(np.linalg.eigvals(np.asarray(matrix))))

    found = best_rate(jnp.asarray(q), jnp.asarray(decay(q)))
    np.testing.assert_allclose(found, best, rtol=1e-9)
    # At the best rate all smaller eigenvalues decay as fast, the largest included.
    for eigenvalue in (0.0, rho / 3, rho):
        np.testing.assert_allclose(decay(best, eigenvalue), best, rtol=1e-6)
    assert decay(0.9 * best) > best
    assert decay(best + 0.1 * (1 - best)) > best


@pytest.mark.parametrize("decay", [0.2, 0.5, 1.0, 1.5, np.nan])
def test_a_decay_that_tells_nothing_leaves_the_rate(decay):
    assert float(best_rate(jnp.asarray(0.5), jnp.asarray(decay))) == 0.5


def _plain_sweeps(cost, a, b, epsilon, tolerance) -> int:
    """Sweeps that Sinkhorn's iteration takes from u = 1, columns exact."""
    kernel = np.exp(-(cost - cost.min(0)) / epsilon)
    u, count = np.ones_like(a), 0
    while True:
        reach = kernel @ (b / (kernel.T @ u))
        if np.abs(u * reach - a).sum() <= tolerance:
            return count
        u, count = a / reach, count + 1


@pytest.mark.parametrize("common", [True, False])
def test_momentum_saves_sweeps_and_changes_no_answer(common):
    """Plans of a dense loop, in two to five times fewer sweeps."""
    n, m = 50, 60
    x, y = R.normal(size=(4, n, 2)), R.normal(size=(4, m, 2))
    costs = np.sum((x[:, :, None] - y[:, None]) ** 2, -1)
    costs = costs[:1].repeat(4, 0) if common else costs
    epsilon = np.full(4, 0.4)
    b = R.random((4, m)) + 0.2
    b = b / b.sum(1, keepdims=True)
    run = lambda c, b, e: jaxsns.solve(c, None, b, epsilon=e, tolerance=1e-9)
    axes = (None if common else 0, 0, None if common else 0)
    batch = jax.jit(jax.vmap(run, in_axes=axes))(
        jnp.asarray(costs[0] if common else costs),
        jnp.asarray(b),
        epsilon[0] if common else jnp.asarray(epsilon),
    )
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.counts.newton_steps) == 0)
    a = _uniform(n)
    for k in range(4):
        f, g = references.sinkhorn(costs[k], a, b[k], epsilon[k])
        plan = references.plan(costs[k], f, g, epsilon[k])
        np.testing.assert_allclose(batch.plan()[k], plan, atol=1e-9)
        np.testing.assert_allclose(batch.f[k], f, atol=1e-7)
        plain = _plain_sweeps(costs[k], a, b[k], epsilon[k], 1e-9)
        assert plain >= 60
        assert int(batch.counts.sweeps[k]) <= 0.5 * plain


def test_lanes_whose_kernel_may_have_lost_entries_are_checked_by_a_pass():
    """In float32, at an epsilon at which a kernel cannot hold the plan for sure."""
    n, d = 60, 8
    x, y = R.normal(size=(8, n, d)), R.normal(size=(8, n, d))
    costs = np.sum((x[:, :, None] - y[:, None]) ** 2, -1).astype(np.float32)
    epsilon = np.float32(0.004 * costs.mean())
    a = _uniform(n)
    one = jnp.ones(8, jnp.float32)
    masses = jnp.full((8, n), 1 / n, jnp.float32)
    marginals = joint_sinkhorn.BatchMarginals(
        a=masses,
        b=masses,
        tolerance=1e-3 * one,
        max_steps=jnp.full(8, 900),
        rounding_share=0 * one,
        active=jnp.ones(8, bool),
    )
    base = jnp.asarray(costs.min(2))
    top = jnp.max(base[:, :, None] - costs, axis=1)
    matrix = jnp.exp((base[:, :, None] - costs - top[:, None]) / epsilon)
    matrix = jnp.where(matrix < 1e-30, 0, matrix)
    kernels = joint_sinkhorn.Kernels(matrix, base, top, epsilon * one[:, None])
    with jax.numpy_rank_promotion("allow"):
        swept = joint_sinkhorn.sweep(
            kernels, marginals, None, joint_sinkhorn.ON_OWN_KERNELS
        )
    swept_x = (np.asarray(swept.f) - kernels.base) / epsilon
    swept_y = (np.asarray(swept.g) + kernels.top) / epsilon
    # Most mass that flushed entries can have had.
    lost = 1e-30 * np.exp(swept_x).sum(1) * np.exp(swept_y).sum(1)
    doubted = (np.asarray(swept.error) <= 1e-3) & (lost > 1e-3)
    assert np.any(doubted)
    run = lambda c: jaxsns.solve(c, epsilon=epsilon, tolerance=1e-3)
    batch = jax.jit(jax.vmap(run))(costs)
    assert np.all(batch.converged)
    assert np.any(np.asarray(batch.counts.newton_steps)[doubted] == 0)
    for k in range(8):
        f, g = batch.f[k], batch.g[k]
        true = references.error(costs[k], a, a, f, g, float(epsilon))
        assert true <= 1e-3
        np.testing.assert_allclose(batch.error[k], true, rtol=0.05, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "near", "far", "tolerance"),
    [("float64", 344.0, 347.0, 1e-9), ("float32", 68.0, 71.0, 1e-3)],
)
def test_a_common_kernel_may_be_too_small_where_lanes_have_no_mass(
    dtype, near, far, tolerance
):
    """The least cost of every line is in one without mass; `far` alone is flushed.

    Without what is flushed one sweep ends it, with an error of 0.1.
    """
    cost = np.zeros((40, 40))
    cost[:19, 2:21], cost[:19, 21:] = near, far
    cost[19:38, 2:21], cost[19:38, 21:] = far, near
    mass = np.r_[np.full(38, 1 / 38), 0, 0]
    masses = jnp.asarray(np.stack([mass, mass]), dtype)
    run = lambda a: jaxsns.solve(
        jnp.asarray(cost, dtype), a, a[::-1], epsilon=1.0, tolerance=tolerance
    )
    batch = jax.jit(jax.vmap(run))(masses)
    assert np.all(batch.converged)
    true = references.error(cost, mass, mass[::-1], batch.f[0], batch.g[0], 1.0)
    assert true <= 1.1 * tolerance
