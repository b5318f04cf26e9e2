"""Layers: batches and masks against loops over what counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

R = np.random.default_rng(0)
SIZES = [(5, 7), (5, 7), (8, 8)]  # one program for two


def _batch():
    r = np.random.default_rng(1)
    x = [r.normal(size=(n, 2)) for n, _ in SIZES]
    y = [r.normal(size=(m, 2)) + 1 for _, m in SIZES]
    (px, mx), (py, my) = jaxsns.ragged.pad(x), jaxsns.ragged.pad(y)
    # What does not count may be anything.
    px = jnp.where(mx[..., None], px, jnp.nan)
    return x, y, px, mx, py, my


def test_loss_of_a_padded_batch_is_that_of_a_loop():
    x, y, px, mx, py, my = _batch()

    def total(px):
        loss = jaxsns.transport_loss(px, py, where=mx, where_targets=my, epsilon=0.3)
        return jnp.sum(loss), loss

    (_, loss), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(px)
    assert loss.shape == (3,)

    @jax.jit
    @jax.value_and_grad
    def one(x, y):
        return jaxsns.sinkhorn_divergence(x, y, epsilon=0.3).value

    for i, (n, _) in enumerate(SIZES):
        value, slope = one(x[i], y[i])
        np.testing.assert_allclose(loss[i], value, atol=1e-10)
        np.testing.assert_allclose(gradient[i, :n], slope, atol=1e-6)
        assert np.all(gradient[i, n:] == 0)


def _plan(cost, a, b, epsilon, rho=np.inf, sweeps=5000):
    """Plan by sweeps in NumPy, rows then columns, from columns that fit u = 1."""
    tau = 1 / (1 + epsilon / rho)
    kernel, v = np.exp(-cost / epsilon), np.ones(b.size)
    for _ in range(sweeps):
        u = a / (kernel @ v)
        v = (b / (kernel.T @ u)) ** tau
    return u[:, None] * kernel * v


def test_attention_against_a_loop_with_heads_and_masks():
    q, k = R.normal(size=(2, 3, 5, 4)), R.normal(size=(2, 3, 6, 4))
    v = R.normal(size=(2, 3, 6, 2))
    where = np.ones((2, 3, 6), bool)
    where[1, :, 4:] = False
    out, solution = jax.jit(
        lambda q, k, v: jaxsns.transport_attention(
            q, k, v, where_keys=where, tolerance=1e-10, return_solution=True
        )
    )(q, k, v)
    assert solution.status.shape == (2, 3)
    for i in np.ndindex(2, 3):
        keep = where[i]
        m = keep.sum()
        cost = -q[i] @ k[i][keep].T / 2
        plan = _plan(cost, np.full(5, 1 / 5), np.full(m, 1 / m), 1.0)
        np.testing.assert_allclose(out[i], 5 * plan @ v[i][keep], atol=1e-8)
    fixed = jaxsns.transport_attention(q, k, v, max_steps=2, early_stop=False)
    for i in np.ndindex(2, 3):
        a, b = np.full(5, 1 / 5), np.full(6, 1 / 6)
        plan = _plan(-q[i] @ k[i].T / 2, a, b, 1.0, sweeps=2)
        mean = plan @ v[i] / plan.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(fixed[i], mean, atol=1e-12)


def test_pooling_against_a_loop():
    x, _, px, mx, *_ = _batch()
    prototypes = R.normal(size=(3, 2))
    run = lambda **more: jax.jit(
        lambda px: jaxsns.transport_pooling(
            px, prototypes, where=mx, epsilon=0.5, tolerance=1e-10, **more
        )
    )(px)
    for rho in (np.inf, 1.0):
        out = run() if rho == np.inf else run(rho=rho)
        assert out.shape == (3, 3, 2)
        for i, (n, _) in enumerate(SIZES):
            cost = ((x[i][:, None] - prototypes) ** 2).sum(-1)
            plan = _plan(cost, np.full(n, 1 / n), np.full(3, 1 / 3), 0.5, rho)
            mean = plan.T @ x[i] / plan.sum(axis=0)[:, None]
            np.testing.assert_allclose(out[i], mean, atol=1e-8)


def test_a_lane_that_fails_is_nan_and_leaves_the_others():
    x, y = R.normal(size=(2, 6, 2)), R.normal(size=(2, 6, 2))
    where = jnp.ones((2, 6), bool).at[0].set(False)
    out, solution = jaxsns.transport_loss(
        x, y, where=where, epsilon=0.1, return_solution=True
    )
    assert np.isnan(out[0])
    assert np.isfinite(out[1])
    assert not solution.converged[0]
    pooled = jaxsns.transport_pooling(x, y[0, :3], where=where, epsilon=0.1)
    assert np.all(np.isnan(pooled[0]))
    assert np.all(np.isfinite(pooled[1]))


def test_wrong_arguments_are_named():
    x, y = jnp.ones((2, 5, 3)), jnp.ones((2, 4, 3))
    cases = [
        (lambda: jaxsns.transport_loss(x[0, 0], y), "predictions"),
        (lambda: jaxsns.transport_loss(x, y[:1]), "targets"),
        (lambda: jaxsns.transport_loss(x, y[..., :2]), "targets"),
        (lambda: jaxsns.transport_loss(x, y, where=jnp.ones((2, 4), bool)), "where"),
        (lambda: jaxsns.transport_attention(x, y, x), "value"),
        (lambda: jaxsns.transport_attention(x, y[..., :2], y), "key"),
        (lambda: jaxsns.transport_pooling(x, y), "prototypes"),
    ]
    for call, name in cases:
        with pytest.raises(ValueError, match=name):
            call()
    with pytest.raises(TypeError, match="where must be boolean"):
        jaxsns.transport_loss(x, y, where=jnp.ones((2, 5)))
