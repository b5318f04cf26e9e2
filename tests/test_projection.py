"""Small matrices made doubly stochastic, against a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

R = np.random.default_rng(0)


def published(logits, steps=20, offset=1e-6):
    """The loop of the published kernels on whole matrices, float64."""
    x = np.exp(logits - logits.max(-1, keepdims=True))
    x = x / x.sum(-1, keepdims=True) + offset
    x = x / (x.sum(-2, keepdims=True) + offset)
    for _ in range(steps - 1):
        x = x / (x.sum(-1, keepdims=True) + offset)
        x = x / (x.sum(-2, keepdims=True) + offset)
    return x


def papers(logits, steps=20):
    """Equation 9 of arXiv 2512.24880."""
    x = np.exp(logits)
    for _ in range(steps):
        x = x / x.sum(-2, keepdims=True)
        x = x / x.sum(-1, keepdims=True)
    return x


def test_published_loop_and_equation():
    logits = 2 * R.normal(size=(3, 5, 4, 4))
    ours = jaxsns.sinkhorn_projection(logits)
    np.testing.assert_allclose(ours, published(logits), rtol=1e-12)
    np.testing.assert_allclose(ours.sum(-2), 1, atol=2e-6)
    rows = jaxsns.sinkhorn_projection(logits, exact="rows", offset=0)
    np.testing.assert_allclose(rows, papers(logits), rtol=1e-12)
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-14)
    few = jaxsns.sinkhorn_projection(logits, 1, offset=1e-3)
    np.testing.assert_allclose(few, published(logits, 1, 1e-3), rtol=1e-12)
    # The sums of the other side are near 1 only.
    assert 1e-9 < np.abs(rows.sum(-2) - 1).max() < 0.1


def test_low_precision_is_float32_inside():
    logits = jnp.asarray(3 * R.normal(size=(7, 4, 4)), jnp.bfloat16)
    ours = jaxsns.sinkhorn_projection(logits)
    assert ours.dtype == jnp.bfloat16
    exact = published(np.asarray(logits, float))
    np.testing.assert_allclose(np.asarray(ours, float), exact, rtol=2.0**-8)
    narrow = jaxsns.sinkhorn_projection(logits.astype(jnp.float32))
    np.testing.assert_allclose(narrow, exact, rtol=2e-6)
    gradient = jax.grad(lambda x: jnp.sum(jaxsns.sinkhorn_projection(x)[:, 0, 0]))
    assert gradient(logits).dtype == jnp.bfloat16


def test_derivatives_are_those_of_the_loop():
    logits, weights, change = R.normal(size=(3, 6, 4, 4))

    def loss(x):
        return jnp.sum(weights * jaxsns.sinkhorn_projection(x))

    h = 1e-5
    differences = np.zeros(logits.shape)
    for i in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[i] = h
        ends = published(logits + step), published(logits - step)
        differences[:, *i] = (weights * (ends[0] - ends[1])).sum((1, 2)) / (2 * h)
    gradient = jax.jit(jax.grad(loss))(logits)
    np.testing.assert_allclose(gradient, differences, atol=2e-10)
    slope = jax.jvp(loss, (logits,), (change,))[1]
    np.testing.assert_allclose(slope, np.sum(gradient * change), rtol=1e-11)
    # In the offset, and under vmap.
    at = lambda offset: np.sum(weights * published(logits, offset=offset))
    project = functools.partial(jaxsns.sinkhorn_projection, jnp.asarray(logits))
    in_offset = jax.grad(lambda o: jnp.sum(weights * project(offset=o)))(1e-2)
    np.testing.assert_allclose(in_offset, (at(1.01e-2) - at(0.99e-2)) / 2e-4, rtol=1e-3)
    lanes = jax.vmap(jaxsns.sinkhorn_projection)(logits)
    np.testing.assert_allclose(lanes, published(logits), rtol=1e-12)


def test_blocks_and_memory():
    # 700 matrices are two blocks, the second filled up.
    logits = R.normal(size=(700, 4, 4))
    np.testing.assert_allclose(
        jaxsns.sinkhorn_projection(logits), published(logits), rtol=1e-12
    )
    many = jax.ShapeDtypeStruct((1 << 16, 4, 4), jnp.float32)
    loss = lambda x: jnp.sum(jaxsns.sinkhorn_projection(x)[:, 0, 0] ** 2)
    compiled = jax.jit(jax.grad(loss)).lower(many).compile()
    # A few copies of the input and a block; the iterates would be 40 inputs.
    size = 4 * many.size
    assert compiled.memory_analysis().temp_size_in_bytes < 5 * size + (1 << 22)


def test_extreme_logits():
    logits = np.zeros((4, 4))
    logits[0, 1:] = logits[1:, 0] = -np.inf
    kept = jaxsns.sinkhorn_projection(logits, offset=0)
    np.testing.assert_allclose(kept[0], [1, 0, 0, 0])
    np.testing.assert_allclose(kept[1:, 1:], 1 / 3)
    far = jnp.asarray(200 * R.normal(size=(50, 4, 4)), jnp.float32)
    project = lambda x: jaxsns.sinkhorn_projection(x, offset=0)
    for x in (far, -far):
        out, back = jax.vjp(project, x)
        assert jnp.all(jnp.isfinite(out))
        assert jnp.all(jnp.isfinite(back(out)[0]))
    assert jnp.isnan(jaxsns.sinkhorn_projection(np.full((2, 2), np.nan))).all()
    assert jaxsns.sinkhorn_projection(np.zeros((1, 1)), offset=0) == 1


def test_what_is_refused():
    for kind, message, bad, options in (
        (ValueError, r"logits must have shape \[..., n, n\]", np.ones((4, 3)), {}),
        (TypeError, "logits must hold real numbers", np.ones((2, 2), bool), {}),
        (ValueError, "steps must be at least 1; got 0", np.ones((2, 2)), {"steps": 0}),
        (TypeError, "steps must be a Python integer", np.ones((2, 2)), {"steps": 2.0}),
        (ValueError, "exact must be", np.ones((2, 2)), {"exact": "both"}),
        (ValueError, "offset must be finite", np.ones((2, 2)), {"offset": -1.0}),
    ):
        with pytest.raises(kind, match=message):
            jaxsns.sinkhorn_projection(bad, **options)
    traced = jax.jit(lambda o: jaxsns.sinkhorn_projection(np.ones((2, 2)), offset=o))
    assert jnp.isnan(traced(-1.0)).all()
