"""Matching losses against dense NumPy, optax and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsns

EPSILON = 0.3


def _data():
    r = np.random.default_rng(0)
    cost = r.random((24, 37))
    a, b = r.random(24) + 0.1, r.random(37) + 0.1
    a[4], b[7] = 0, 0
    target = r.random((24, 37))
    target[:, 7] = 0
    labels = r.choice([j for j in range(37) if j != 7], size=24)
    return cost, a / a.sum(), b / b.sum(), target, labels


def _conditional(solution, axis=1):
    plan = np.asarray(solution.plan())
    mass = plan.sum(axis, keepdims=True)
    return plan / np.where(mass > 0, mass, 1)


def test_loss_is_a_dense_sum():
    cost, a, b, target, labels = _data()
    solution = jaxsns.solve(cost, a, b, epsilon=EPSILON)
    for axis in (0, 1):
        p = _conditional(solution, axis)
        log = np.log(np.where(p > 0, p, 1))
        t = np.where(a[:, None] > 0, target, 0)
        got = jaxsns.matching_cross_entropy(solution, t, axis=axis)
        np.testing.assert_allclose(got, -(t * log).sum(axis), rtol=0, atol=1e-12)
    got = jaxsns.matching_cross_entropy_with_integer_labels(solution, labels)
    chosen = _conditional(solution)[np.arange(24), labels]
    expected = -np.log(np.where(a > 0, chosen, 1))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    hot = jax.nn.one_hot(labels, 37)
    np.testing.assert_allclose(
        got, jaxsns.matching_cross_entropy(solution, hot), rtol=0, atol=1e-14
    )
    other = jaxsns.matching_cross_entropy_with_integer_labels(
        solution, np.zeros(37, int), axis=0
    )
    expected = -np.log(np.where(b > 0, _conditional(solution, 0)[0], 1))
    np.testing.assert_allclose(other, expected, rtol=0, atol=1e-12)


def test_convention_is_that_of_optax():
    cost, _, _, target, labels = _data()
    solution = jaxsns.solve(cost, epsilon=EPSILON)
    logits = jnp.log(solution.plan())
    expected = optax.losses.softmax_cross_entropy(logits, target)
    got = jaxsns.matching_cross_entropy(solution, target)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)
    hard = jaxsns.matching_cross_entropy_with_integer_labels(solution, labels)
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    np.testing.assert_allclose(hard, expected, rtol=0, atol=1e-12)


def test_rows_that_do_not_count():
    cost, a, b, target, labels = _data()
    solution = jaxsns.solve(cost, a, b, epsilon=EPSILON)
    where = np.arange(24) % 3 != 0
    full = jaxsns.matching_cross_entropy(solution, target)
    got = jaxsns.matching_cross_entropy(solution, target, where=where)
    np.testing.assert_array_equal(got, np.where(where, full, 0))
    assert (np.asarray(full)[[4]] == 0).all()
    labels = np.where(where, labels, -1)
    got = jaxsns.matching_cross_entropy_with_integer_labels(
        solution, labels, where=where
    )
    assert np.isfinite(got).all()
    assert (np.asarray(got)[~where] == 0).all()


def test_a_match_that_cannot_be_is_infinite():
    cost, a, b, target, labels = _data()
    solution = jaxsns.solve(cost, a, b, epsilon=EPSILON)
    target[2, 7] = 0.1
    labels[2] = 7
    for loss in (
        jaxsns.matching_cross_entropy(solution, target),
        jaxsns.matching_cross_entropy_with_integer_labels(solution, labels),
    ):
        assert np.isposinf(loss[2])
        assert np.isfinite(np.delete(loss, 2)).all()


def test_gradients_are_those_of_finite_differences():
    cost, a, b, target, labels = _data()

    def losses(cost):
        s = jaxsns.solve(
            cost, a, b, epsilon=EPSILON, tolerance=1e-13, method="sinkhorn"
        )
        hard = jaxsns.matching_cross_entropy_with_integer_labels(s, labels)
        soft = jaxsns.matching_cross_entropy(s, target)
        out = jnp.stack([jnp.sum(soft), jnp.sum(hard)])
        return out, out

    direction = np.random.default_rng(1).normal(size=cost.shape)
    h = 1e-5
    both = jax.jit(jax.jacrev(losses, has_aux=True))
    up, down = (both(cost + t * direction)[1] for t in (h, -h))
    reference = (up - down) / (2 * h)
    gradients = both(cost)[0]
    got = jnp.sum(gradients * direction[None], axis=(1, 2))
    np.testing.assert_allclose(got, reference, rtol=1e-7)


def test_no_answer_stays_no_answer():
    cost, a, b, target, labels = _data()
    good = jaxsns.solve(cost, a, b, epsilon=EPSILON)
    nan = dict(f=good.f * np.nan, g=good.g * np.nan)
    for bad_a, bad_b in ((-a, b), (a, b * np.nan), (a * np.nan, b)):
        masses = dict(a=jnp.asarray(bad_a), b=jnp.asarray(bad_b))
        problem = dataclasses.replace(good.problem, **masses)
        failed = dataclasses.replace(good, problem=problem, reduced=None, **nan)
        assert np.isnan(jaxsns.matching_cross_entropy(failed, target)).all()
        hard = jaxsns.matching_cross_entropy_with_integer_labels(failed, labels)
        assert np.isnan(hard).all()
    assert np.isnan(jax.jit(jaxsns.matching_cross_entropy)(good, -target)).any()
    hard = jax.jit(jaxsns.matching_cross_entropy_with_integer_labels)
    assert np.isnan(hard(good, np.full(24, 37))[a > 0]).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s, f, g: f(s, np.ones((3, 3))), ValueError, "target must have shape"),
        (lambda s, f, g: f(s, -np.ones((24, 37))), ValueError, "target must hold"),
        (lambda s, f, g: f(s.g, np.ones((24, 37))), TypeError, "solution must be"),
        (
            lambda s, f, g: f(s, np.ones((24, 37)), where=np.ones(3, bool)),
            ValueError,
            "where must have shape",
        ),
        (lambda s, f, g: g(s, np.ones(24)), TypeError, "labels must be integers"),
        (lambda s, f, g: g(s, np.ones(5, int)), ValueError, "labels must have shape"),
        (lambda s, f, g: g(s, np.full(24, 37)), ValueError, "labels must be from 0"),
    ],
)
def test_bad_arguments_raise_with_their_name(call, error, words):
    solution = jaxsns.solve(_data()[0], epsilon=EPSILON)
    losses = (
        jaxsns.matching_cross_entropy,
        jaxsns.matching_cross_entropy_with_integer_labels,
    )
    with pytest.raises(error, match=words):
        call(solution, *losses)
