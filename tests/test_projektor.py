"""The core of `experiments/projektor` on tiny input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from experiments.projektor import distance, learner, model
from experiments.projektor.data import Images

R = np.random.default_rng(5)


SIZES = np.array([3, 3, 2])
MEMBER = np.repeat(np.eye(3) / SIZES[:, None], SIZES, axis=1)


def _squared(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def _setting():
    x, y = R.normal(size=(8, 3)), R.normal(size=(8, 3)) + 0.5
    parts = _squared(x, y), _squared(x, x), 0.0, MEMBER, 0.3
    return distance.Setting(*map(jnp.asarray, parts))


SETTING = _setting()
P = jnp.asarray([0.5, 0.3, 0.2])


def value(p):
    return distance.evaluate(SETTING, p)[0]


def _moved(p, i, step):
    """Share i grows by step, the others shrink in proportion."""
    p = np.array(p)
    others = np.arange(p.size) != i
    p[others] *= 1 - step / (1 - p[i])
    p[i] += step
    return jnp.asarray(p)


def _differences(p, step=1e-4):
    pairs = [(value(_moved(p, i, step)), value(_moved(p, i, -step))) for i in range(3)]
    return [(float(up) - float(down)) / (2 * step) for up, down in pairs]


def test_the_calibrated_gradient_is_that_of_reweighting_the_mixture():
    _, found, good = distance.evaluate(SETTING, P)
    assert good
    np.testing.assert_allclose(found, _differences(P), rtol=1e-5, atol=1e-7)


def test_the_published_formula_with_counts():
    # Images of equal weight: the shares are n_i / N.
    total, mass = SIZES.sum(), np.full(8, 1 / 8)
    cross, own = np.asarray(SETTING.cross), np.asarray(SETTING.own)
    f = references.sinkhorn(cross, mass, mass, 0.3)[0]
    f -= references.sinkhorn(own, mass, mass, 0.3)[0]
    of = np.repeat(np.arange(3), SIZES)
    published = [
        (f[of == i].sum() - n / (total - n) * f[of != i].sum()) / n
        for i, n in enumerate(SIZES)
    ]
    found = distance.evaluate(SETTING, jnp.asarray(SIZES / total))[1]
    np.testing.assert_allclose(found, published, rtol=1e-6)


def test_the_cost_and_the_distance_see_labels():
    shift = np.array([2.0, 1.0, 0.0])
    first = R.normal(size=(4, 3))
    x = np.concatenate([first, first + shift])
    right, wrong = Images(x, np.repeat([0, 1], 4)), Images(x, np.arange(8) % 2)
    near = distance.make_setting([right], right)
    far = distance.make_setting([wrong], right)
    # Equal masses of all images; three sources only to compile nothing more.
    p, member = jnp.asarray(SIZES / 8), jnp.asarray(MEMBER)
    same, other = (distance.evaluate(s._replace(member=member), p) for s in (near, far))
    np.testing.assert_allclose(same[0], 0, atol=1e-7)
    assert other[0] > 1e-2
    # The divergence of a cloud from itself moved is the square of the way.
    squared = _squared(x, x)
    np.testing.assert_allclose(near.own[1, 6], squared[1, 6] + 5, rtol=1e-7)
    np.testing.assert_allclose(near.own[1, 3], squared[1, 3], rtol=1e-7)


def test_the_model_fits_what_is_of_its_form_and_projects_in_log_size():
    mixtures = jnp.asarray(R.dirichlet(np.ones(3), 30))
    found = jnp.asarray(R.random(30))
    rows = jax.vmap(model.published)(mixtures, found)
    small, large = R.normal(size=(2, 12))
    scaling = model.fit(rows, rows @ small, rows @ large, (10, 20))
    for row in rows[:3]:
        at = [model.predict(scaling, row, jnp.asarray(n)) for n in (10.0, 20.0, 40.0)]
        np.testing.assert_allclose(at[:2], [row @ small, row @ large], rtol=1e-8)
        np.testing.assert_allclose(at[2] - at[1], at[1] - at[0], rtol=1e-8)


@pytest.mark.parametrize("p", [[0.2, 0.3, 0.5], [2.0, -1.0, 0.1], [0.0, 0.0, 0.0]])
def test_the_projection_is_the_nearest_point_of_the_simplex(p):
    p = np.array(p)
    found = np.asarray(model.to_simplex(jnp.asarray(p)))
    np.testing.assert_allclose(found.sum(), 1)
    assert found.min() >= model.LOWEST - 1e-12
    for other in R.dirichlet(np.ones(3), 50):
        other = model.LOWEST + (1 - 3 * model.LOWEST) * other
        # Obtuse angle: the condition of the nearest point of a convex set.
        assert (p - found) @ (other - found) <= 1e-12


def test_the_ascent_finds_the_top_of_a_parabola():
    top = jnp.asarray([0.2, 0.7, 0.1])
    found = model.ascend(
        lambda p: distance.calibrate(-2 * (p - top), p), jnp.full(3, 1 / 3)
    )
    np.testing.assert_allclose(found, top, atol=1e-2)
    np.testing.assert_allclose(found.sum(), 1)


def test_the_slope_of_the_model_is_that_of_reweighting():
    scaling = model.Scaling(*jnp.asarray(R.normal(size=(2, 12))), jnp.asarray([5, 9.0]))

    def look(p):
        return distance.evaluate(SETTING, p)

    def predicted(p):
        row = model.published(p, look(p)[0])
        return float(model.predict(scaling, row, jnp.asarray(20.0)))

    slope = model.slope_of(scaling, model.published, 20.0, look)(P)
    for i in range(3):
        up, down = predicted(_moved(P, i, 1e-4)), predicted(_moved(P, i, -1e-4))
        np.testing.assert_allclose(slope[i], (up - down) / 2e-4, rtol=1e-4)


def test_the_learner_learns_and_counts_add_up():
    assert learner.counts([0.5, 0.25, 0.25], 10).sum() == 10
    np.testing.assert_array_equal(learner.counts([1, 0, 0], 7), [7, 0, 0])
    train = Images(np.eye(4)[[0, 1, 2, 3] * 5], np.array([0, 1, 2, 3] * 5))
    test = Images(np.eye(4), np.arange(4))
    assert learner.mean_accuracy([train], [1.0], 20, test, 1, 0) == 1
