"""The core of experiments/otsurv: the published layer and ours, padding, survival."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from experiments.otsurv import compare, data, layer, model, survival, unrolled

PATCHES = 24
COST = compare.make_cost(PATCHES, 3)
CONVERGED = functools.partial(unrolled.plan, steps=4000)
WEIGHTS = np.random.default_rng(4).normal(size=COST.shape)


def padded(x):
    """Rows that stand for no patch: what is in them must not count."""
    return jnp.concatenate([x, jnp.full((7, *x.shape[1:]), 50, x.dtype)])


def ours_padded(cost, share):
    mask = jnp.arange(PATCHES + 7) < PATCHES
    return layer.assign(padded(cost), mask, share).plan()[:PATCHES]


@functools.partial(jax.jit, static_argnums=(0, 2))
def both(plan_of, share, dtype):
    """Plan of a layer, and the gradient of <WEIGHTS, plan> in the costs."""
    arguments = (jnp.asarray(x, dtype) for x in (COST, WEIGHTS, share))
    return compare.with_gradient(plan_of, *arguments)


# Each layer is compiled for seconds: one dtype has padding, the other has none.
@pytest.mark.parametrize("share", compare.SHARES)
@pytest.mark.parametrize(
    ("plan_of", "dtype", "most"),
    [(compare.ours, "float64", 1e-9), (ours_padded, "float32", 1e-6)],
)
def test_plan_and_gradient_are_those_of_the_published_loop(share, plan_of, dtype, most):
    plan, gradient = both(plan_of, share, dtype)
    expected, slope = both(CONVERGED, share, "float64")
    assert plan.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(plan, expected, atol=most, rtol=0)
    assert compare.difference(plan, expected) < 10 * most
    assert compare.difference(gradient, slope) < 10 * most
    np.testing.assert_allclose(jnp.sum(plan), share, rtol=100 * most)


@pytest.mark.parametrize("share", [0.1, 0.97])
def test_the_loop_is_the_published_one(share):
    expected = references.semi_relaxed_scaling(COST, share, 0.1, 1.0)
    found, _ = both(CONVERGED, share, "float64")
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_ramp_ends_at_everything():
    shares = [layer.ramp(epoch) for epoch in range(layer.RAMP + 2)]
    assert shares == sorted(shares)
    assert 0.1 < shares[0] < 0.11
    assert shares[-1] == 1


@pytest.mark.parametrize("pooling", [x for x in model.POOLINGS if x != "transport"])
def test_padding_does_not_change_the_risk(pooling):
    bags = data.make_bags(2, 0)
    parameters = model.make_parameters(jax.random.key(0), pooling, bags.patches[1][:16])
    patches, share = jnp.asarray(bags.patches[0]), jnp.float32(1)
    mask = jnp.ones(len(patches), bool)
    value, _ = model.risk(pooling, parameters, patches, mask, share)
    mask = jnp.arange(len(patches) + 7) < len(patches)
    longer, _ = model.risk(pooling, parameters, padded(patches), mask, share)
    np.testing.assert_allclose(longer, value, atol=1e-6)


def test_padding_does_not_change_distances():
    random = np.random.default_rng(5)
    x, y = (
        jnp.asarray(random.normal(size=(5, 3))),
        jnp.asarray(random.normal(size=(4, 3))),
    )
    expected = layer.distances(x, y, jnp.ones(5, bool))
    found = layer.distances(padded(x), y, jnp.arange(12) < 5)
    np.testing.assert_allclose(found[:5], expected, atol=1e-12)
    assert jnp.max(expected) == 1


def test_concordance_counts_pairs():
    random = np.random.default_rng(0)
    time, event = random.integers(1, 9, 30) / 4, random.random(30) < 0.6
    risk = random.integers(0, 5, 30) / 5
    won, pairs = 0.0, 0
    for i, j in itertools.permutations(range(30), 2):
        if event[i] and time[i] < time[j]:
            pairs += 1
            won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    assert survival.concordance(risk, time, event) == pytest.approx(won / pairs)
    assert survival.concordance(-time, time, event) == 1


def test_cox_loss_by_hand():
    risk = np.array([0.3, -1.0, 2.0, 0.5])
    time, event = np.array([3.0, 1.0, 2.0, 4.0]), np.array([True, True, False, False])
    terms = [
        np.log(np.exp(risk[time >= time[i]]).sum()) - risk[i]
        for i in np.flatnonzero(event)
    ]
    found = survival.cox_loss(*map(jnp.asarray, (risk, time, event)))
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-12)
