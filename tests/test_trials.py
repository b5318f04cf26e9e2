"""Lengths of steps along a direction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from jaxsns.solvers.newton import line_search


def searched(gain, start=1.0, most=np.inf):
    """Search on a gain with slope and curvature 1 in the model; lengths tried."""
    tried = []

    def attempt(length):
        tried.append(length)
        value = jnp.asarray(gain(length), jnp.float64)
        promised = length - 0.5 * length**2
        return length, value, jnp.where(jnp.isfinite(value), value / promised, -1)

    with jax.disable_jit():
        found = line_search.search(
            attempt, lambda x: x <= most, jnp.asarray(start), jnp.asarray(0.0)
        )
    return found, [float(x) for x in tried]


def test_none_where_none_is_wanted():
    """Elements of a batch that are done must not keep the others' loop going."""
    one, none = jnp.asarray(1.0), jnp.asarray(False)
    never = lambda length: pytest.fail("tried")
    with jax.disable_jit():
        found = line_search.search(never, lambda x: x < 9, one, one, none)
    assert found.gain_ratio == -jnp.inf  # refused


def test_the_ratio_of_gain_and_promise():
    rho = lambda *x, before=1.0, after=0.1: float(
        line_search.gain_ratio(
            *map(jnp.asarray, x), (jnp.asarray(before), jnp.asarray(after)), 1e-3
        )
    )
    assert rho(3.0, 2.0, 0.1) == 1.5
    assert rho(-3.0, 2.0, 0.1) == -1.5
    # In rounding: by the error.
    assert rho(-3.0, 0.05, 0.1) == 1
    assert rho(3.0, 0.05, 0.1, after=2.0) == -1
    # No longer than one that ends it; but one that gains nothing is no end.
    assert rho(3.0, 2.0, 0.1, after=1e-3) == 1
    assert rho(1.0, 2.0, 0.1, after=1e-3) == 0.5


def test_a_good_first_trial_is_the_only_one():
    found, tried = searched(lambda x: x - 0.5 * x**2)
    assert tried == [1.0]
    assert found.point == 1.0
    assert found.gain_ratio == 1.0


def test_shorter_until_it_gains():
    """A gain that is negative beyond 0.2: the first length that keeps a tenth."""
    found, tried = searched(lambda x: x * (0.2 - x))
    np.testing.assert_allclose(tried, [1, 0.4, 0.16, 0.064])
    assert found.point == tried[-1]
    assert found.gain_ratio >= line_search.WEAK


def test_longer_while_it_gains_more():
    """t - exp(t) from 5 too high: lengths 1, 2 and 4 gain more each, 8 less."""
    scale = np.exp(5.0) - 1
    found, tried = searched(lambda x: (-x + np.exp(5.0) * (1 - np.exp(-x))) / scale)
    assert tried == [1, 2, 4, 8]
    assert found.point == 4
    assert (
        found.gain_ratio > line_search.SHORT
    )  # of the first: the model was good there
    assert found.gain > 0.9


def test_not_longer_than_there_is_room():
    """Nor where a longer one leads nowhere."""
    gain = lambda x: 3 * x
    assert searched(gain, most=2.5)[1] == [1, 2]
    assert searched(gain, most=1.5)[1] == [1]
    found, tried = searched(lambda x: gain(x) if x < 1.5 else -np.inf)
    assert tried == [1, 2]
    assert found.point == 1


def test_six_trials_at_most():
    found, tried = searched(lambda x: -x)
    assert len(tried) == line_search.TRIALS
    assert found.gain_ratio < line_search.WEAK
    assert len(searched(lambda x: 3 * x)[1]) == line_search.TRIALS


@pytest.mark.parametrize(("d", "seed"), [(2, 1), (10, 0)])
def test_longer_steps_save_some(d, seed, monkeypatch):
    """Points at an epsilon where plans nearly split (7 and 9, 10 and 11 steps)."""
    x, y = np.random.default_rng(seed).normal(size=(2, 60, d))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / 200
    run = lambda: jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-11)
    s = run()
    monkeypatch.setattr(line_search, "SHORT", np.inf)
    jax.clear_caches()
    never = run()
    jax.clear_caches()
    assert s.converged
    assert never.converged
    assert int(s.counts.newton_steps) < int(never.counts.newton_steps)
    even = np.full(60, 1 / 60)
    assert references.error(cost, even, even, s.f, s.g, epsilon) <= 1.05e-11
    np.testing.assert_allclose(s.plan(), never.plan(), atol=1e-12)
