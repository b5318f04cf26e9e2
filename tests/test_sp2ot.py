"""The core of `experiments/sp2ot` on tiny input."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.stats import entropy

from experiments.sp2ot import labels, scores
from experiments.sp2ot.semantic import similarity

N, K = 24, 3
R = np.random.default_rng(3)
FEATURES = R.normal(size=(N, 5)) + 2 * np.eye(K, 5)[R.integers(K, size=N)]
LOGITS = FEATURES[:, :K] + 0.3 * R.normal(size=(N, K))
COST = -(LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True)))


@pytest.mark.parametrize("share", [0.1, 0.55, 0.9])
def test_partial_labels_are_those_of_the_published_loop(share):
    plan = references.semi_relaxed_scaling(COST, share, labels.EPSILON, labels.GAMMA)
    found = labels.partial(jnp.asarray(COST), jnp.asarray(share))
    assert found.converged
    np.testing.assert_allclose(found.weights, N * plan, atol=1e-5)
    assert float(found.weights.sum(1).max()) <= 1 + 1e-6


def test_balanced_labels_fill_all_clusters_equally():
    found = labels.balanced(jnp.asarray(COST))
    assert found.converged
    np.testing.assert_allclose(found.weights.sum(0), N / K, rtol=1e-5)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)


def test_the_similarity_is_what_the_majorant_needs():
    s = similarity(FEATURES, neighbours=4)
    np.testing.assert_array_equal(s, s.T)
    assert np.linalg.eigvalsh(s)[0] > -1e-12
    assert (s >= 0).all()


def test_every_step_lowers_the_semantic_objective():
    share, weight = jnp.asarray(0.5), jnp.asarray(1.5 * N / 2)
    cost, similar = jnp.asarray(COST), jnp.asarray(similarity(FEATURES, neighbours=4))
    plan = jnp.full((N, K), 0.5 / (N * K))
    values = [labels.objective(cost, plan, share, similar, weight)]
    for _ in range(8):
        plan, good = labels.semantic_step(cost, similar, weight, share, plan)
        assert good
        values.append(labels.objective(cost, plan, share, similar, weight))
    falls = -np.diff(np.array(values))
    assert falls[0] > 1e-3
    assert (falls > -1e-7).all()
    # Where the steps end, one more stays: the point is stationary.
    found = labels.semantic(cost, share, similar, jnp.asarray(3.0), 200)
    assert found.converged
    assert int(found.steps) < 200
    again, _ = labels.semantic_step(cost, similar, weight, share, found.weights / N)
    np.testing.assert_allclose(N * again, found.weights, atol=1e-4)


def test_without_reward_it_is_the_partial_problem():
    share = jnp.asarray(0.4)
    cost, similar = jnp.asarray(COST), jnp.asarray(similarity(FEATURES, neighbours=4))
    plain = labels.partial(cost, share)
    found = labels.semantic(cost, share, similar, jnp.asarray(0.0), 20)
    np.testing.assert_allclose(found.weights, plain.weights, atol=1e-6)
    assert int(found.steps) == 2
    value = labels.objective(cost, plain.weights / N, share)
    for _ in range(20):
        # Another plan of the same share is worse.
        moved = np.asarray(plain.weights) * np.exp(1e-3 * R.normal(size=(N, K)))
        moved = jnp.asarray(moved * (0.4 / moved.sum()))
        assert labels.objective(cost, moved, share) > value - 1e-9


def test_the_ramp_has_its_published_ends():
    low, middle, high = (labels.ramp(jnp.asarray(x)) for x in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(low, 0.1 + 0.9 * np.exp(-5))
    np.testing.assert_allclose(middle, 0.1 + 0.9 * np.exp(-5 / 4))
    np.testing.assert_allclose(high, 1.0)


def test_accuracy_is_the_best_of_all_namings():
    for seed in range(5):
        r = np.random.default_rng(seed)
        truth, found = r.integers(4, size=30), r.integers(4, size=30)
        best = max(
            np.mean(np.array(names)[found] == truth)
            for names in itertools.permutations(range(4))
        )
        np.testing.assert_allclose(scores.accuracy(truth, found), best)
    names = np.array([2, 0, 1])
    truth = np.array([0, 0, 0, 0, 1, 1, 2])
    assert scores.all_scores(truth, names[truth]) == pytest.approx(
        {"accuracy": 1, "class accuracy": 1, "NMI": 1}
    )
    wrong = np.array([0, 0, 0, 0, 1, 1, 1])
    assert scores.class_accuracy(truth, wrong) == pytest.approx(2 / 3)


def test_nmi_against_entropies_of_scipy():
    truth, found = R.integers(3, size=50), R.integers(5, size=50)
    joint = np.zeros((3, 5))
    np.add.at(joint, (truth, found), 1 / 50)
    outer = joint.sum(1)[:, None] * joint.sum(0)[None, :]
    shared = entropy(joint.ravel(), outer.ravel())
    mean = (entropy(joint.sum(1)) + entropy(joint.sum(0))) / 2
    np.testing.assert_allclose(scores.nmi(truth, found), shared / mean)
    assert scores.nmi(np.zeros(5, int), np.zeros(5, int)) == 0
