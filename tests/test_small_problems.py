"""Small tools against sorting, linear programs and loops of NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import linear_program, plan, sinkhorn

import jaxsns

R = np.random.default_rng(0)


def normalised(x):
    return x / x.sum()


def published_dustbin(scores, alpha, sweeps):
    """SuperGlue's loop on [[scores, alpha], [alpha, alpha]], float64."""
    n, m = scores.shape
    z = np.full((n + 1, m + 1), alpha)
    z[:n, :m] = scores
    log_a = np.log(np.append(np.ones(n), m) / (n + m))
    log_b = np.log(np.append(np.ones(m), n) / (n + m))
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    for _ in range(sweeps):
        u = log_a - np.log(np.exp(z + v).sum(1))
        v = log_b - np.log(np.exp(z + u[:, None]).sum(0))
    return np.exp(z + u[:, None] + v) * (n + m)


def test_dustbin_is_the_published_loop():
    scores = 3 * R.normal(size=(2, 7, 9))
    alpha = 0.4
    match = jax.jit(
        lambda s, alpha, **masks: jaxsns.dustbin_matching(s, alpha, **masks)
    )
    ours = match(scores, alpha)
    for lane, s in zip(ours, scores, strict=True):
        np.testing.assert_allclose(lane, published_dustbin(s, alpha, 3000), atol=1e-8)
    np.testing.assert_allclose(ours[:, :-1].sum(-1), 1, atol=1e-8)
    np.testing.assert_allclose(ours[:, :, :-1].sum(-2), 1, atol=1e-8)
    # Rows and columns that do not count change nothing.
    rows, columns = np.arange(7) < 5, np.arange(9) < 6
    spoilt = np.where(rows[:, None] & columns[None, :], scores, np.nan)
    masks = {"where": np.stack([rows] * 2), "where_columns": np.stack([columns] * 2)}
    masked = match(spoilt, alpha, **masks)
    kept = np.ix_(np.append(rows, True), np.append(columns, True))
    small = published_dustbin(scores[0, :5, :6], alpha, 3000)
    np.testing.assert_allclose(masked[0][kept], small, atol=1e-8)
    assert masked[0].sum() == pytest.approx(small.sum())


def test_dustbin_learns():
    scores, weights = R.normal(size=(7, 9)), R.normal(size=(8, 10))
    loss = lambda s, alpha: jnp.vdot(weights, jaxsns.dustbin_matching(s, alpha))
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1)))(scores, 0.4)
    reference = lambda s, alpha: np.vdot(weights, published_dustbin(s, alpha, 3000))
    step = np.zeros((7, 9))
    step[2, 3] = 1e-5
    change = (reference(scores + step, 0.4) - reference(scores - step, 0.4)) / 2e-5
    np.testing.assert_allclose(slopes[0][2, 3], change, atol=1e-7)
    change = (reference(scores, 0.4 + 1e-5) - reference(scores, 0.4 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slopes[1], change, atol=1e-7)
    _, solution = jaxsns.dustbin_matching(scores, 0.4, return_solution=True)
    labels = np.append(R.integers(10, size=7), 9)
    losses = jaxsns.matching_cross_entropy_with_integer_labels(solution, labels)
    exact = published_dustbin(scores, 0.4, 3000)
    np.testing.assert_allclose(
        losses[:7], -np.log(exact[np.arange(7), labels[:7]]), atol=1e-7
    )
    empty = jaxsns.dustbin_matching(scores, 0.4, where=np.zeros(7, bool))
    np.testing.assert_allclose(empty[7], np.append(np.ones(9), 0), atol=1e-12)
    with pytest.raises(ValueError, match="dustbin must be a scalar"):
        jaxsns.dustbin_matching(scores, np.ones(3))
    with pytest.raises(ValueError, match=r"scores must have shape \[..., n, m\]"):
        jaxsns.dustbin_matching(np.ones(3), 0.0)


def test_monge_gap():
    x, a = R.normal(size=(20, 2)), normalised(R.random(20) + 0.1)
    other = x[R.permutation(20)] + 0.3
    gap = jax.jit(functools.partial(jaxsns.monge_gap, epsilon=0.5))
    cost = ((x[:, None] - other[None]) ** 2).sum(-1)
    f, g = sinkhorn(cost, a, a, 0.5)
    p = plan(cost, f, g, 0.5)
    exact = a @ np.diag(cost) - (cost * p).sum() - 0.5 * (p * np.log(p)).sum()
    np.testing.assert_allclose(gap(x, other, a), exact, atol=1e-9)
    np.testing.assert_allclose(gap(x, other, 3 * a), 3 * exact, atol=1e-8)
    slope = jax.grad(gap, argnums=1)(x, other, a)
    step = np.zeros_like(x)
    step[4, 1] = 1e-5
    change = gap(x, other + step, a) - gap(x, other - step, a)
    np.testing.assert_allclose(slope[4, 1], change / 2e-5, atol=1e-8)
    # The gradient of a convex function is an optimal map: only the bound is left.
    best = jaxsns.monge_gap(x, 2 * x + 1, epsilon=1e-4)
    np.testing.assert_allclose(best, 1e-4 * np.log(20), rtol=1e-6)
    assert gap(x, other, a) > 0.5 * -(a * np.log(a)).sum() + 1e-3
    with pytest.raises(ValueError, match="mapped must have the shape of x"):
        jaxsns.monge_gap(x, other[:3])


def test_sliced_distance_is_a_mean_of_linear_programs():
    x, y, directions = (
        R.normal(size=(6, 3)),
        R.normal(size=(8, 3)),
        R.normal(size=(4, 3)),
    )
    a, b = normalised(R.random(6)), normalised(R.random(8))
    a[2] = b[5] = 0
    a, b = normalised(a), normalised(b)
    sliced = jax.jit(jaxsns.sliced_wasserstein)
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    for p in (1.0, 2.0, 3.0):
        costs = [np.abs((x @ t)[:, None] - (y @ t)[None]) ** p for t in unit]
        exact = np.mean([linear_program(c, a, b) for c in costs])
        ours = sliced(x, y, a, b, directions=directions, p=p)
        np.testing.assert_allclose(ours, exact, rtol=1e-9)
    value = lambda x, a: sliced(x, y, a, b, directions=directions)
    slope, by_mass = jax.grad(value, argnums=(0, 1))(x, a)
    step = np.zeros_like(x)
    step[1, 2] = 1e-6
    change = (value(x + step, a) - value(x - step, a)) / 2e-6
    np.testing.assert_allclose(slope[1, 2], change, atol=1e-8)
    assert jnp.isfinite(by_mass).all()
    # The map is a step along that gradient; what has no mass stays.
    moved = jaxsns.sliced_map(x, y, a, b, directions=directions)
    real = a > 0
    np.testing.assert_allclose(
        moved[real], x[real] - 3 / 2 * slope[real] / a[real, None], atol=1e-10
    )
    np.testing.assert_allclose(moved[~real], x[~real])


def test_sliced_map_finds_a_translation_and_its_limits():
    x, key = R.normal(size=(50, 2)), jax.random.key(0)
    angles = np.pi * np.arange(16) / 16
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = jaxsns.sliced_map(x, x + [3.0, -1.0], directions=directions)
    np.testing.assert_allclose(moved, x + [3.0, -1.0], atol=1e-12)
    far = jaxsns.sliced_wasserstein(x, x + [3.0, -1.0], directions=directions)
    np.testing.assert_allclose(far, 10 / 2, rtol=1e-12)
    same = jax.value_and_grad(lambda y: jaxsns.sliced_wasserstein(x, y, key=key))(x)
    assert same[0] == 0
    assert (same[1] == 0).all()
    lanes = jax.vmap(lambda y: jaxsns.sliced_wasserstein(x, y, key=key))(x[None] + 1)
    assert lanes.shape == (1,)
    bad = jax.jit(lambda a: jaxsns.sliced_wasserstein(x, x, a, key=key))(-np.ones(50))
    assert jnp.isnan(bad)
    for message, change in (
        ("either key", {"key": None}),
        ("p must be at least 1", {"p": 0.5}),
        ("equal totals", {"a": np.ones(50)}),
        (r"directions must have shape \[k, 2\]", {"key": None, "directions": x.T}),
    ):
        with pytest.raises(ValueError, match=message):
            jaxsns.sliced_wasserstein(x, x, **({"key": key} | change))
