"""Debiased barycentres: fixed points of known laws, and potentials of NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxsns import Status, debiased_barycentre, fixed_support_barycentre

R = np.random.default_rng(0)
GRID = np.linspace(0, 1, 40)
COST = (GRID[:, None] - GRID[None, :]) ** 2
EPSILON = 5e-3


def bump(mean, width):
    mass = np.exp(-((GRID - mean) ** 2) / (2 * width**2))
    return mass / mass.sum()


MASSES = np.stack([bump(0.3, 0.06), bump(0.65, 0.09)])
WEIGHTS = np.array([0.4, 0.6])


@jax.jit
def found(masses, weights, epsilon):
    return debiased_barycentre(COST, masses, weights, epsilon=epsilon)


def spread(mass):
    mean = mass @ GRID / mass.sum()
    return mean, np.sqrt(mass @ (GRID - mean) ** 2 / mass.sum())


def test_optimal_by_potentials_of_a_loop():
    out = found(MASSES, WEIGHTS, EPSILON)
    assert out.converged
    b = np.asarray(out.mass)
    np.testing.assert_allclose(b.sum(), 1, atol=1e-6)
    # The gradient of the objective, from transports that know nothing of ours.
    b = b / b.sum()
    gs = [references.sinkhorn(COST, a, b, EPSILON, sweeps=5000)[1] for a in MASSES]
    own = references.sinkhorn(COST, b, b, EPSILON, sweeps=5000)
    gradient = WEIGHTS @ np.stack(gs) - (own[0] + own[1]) / 2
    real = b > 1e-6
    centred = gradient[real] - b[real] @ gradient[real] / b[real].sum()
    assert np.abs(centred).max() < 2e-5
    np.testing.assert_allclose((WEIGHTS @ out.g)[real], out.h[real], atol=2e-5)


def test_no_blur():
    # Gaussians: the mean of the widths, whatever epsilon is.
    mean, width = spread(np.asarray(found(MASSES, WEIGHTS, EPSILON).mass))
    np.testing.assert_allclose(
        [mean, width], [0.51, 0.4 * 0.06 + 0.6 * 0.09], rtol=2e-3
    )
    blurred = fixed_support_barycentre(COST, MASSES, WEIGHTS, epsilon=EPSILON)
    assert spread(np.asarray(blurred.mass))[1] > width + 0.005
    # Copies of a measure have themselves as barycentre.
    copies = found(np.stack([MASSES[1]] * 2), WEIGHTS, EPSILON)
    np.testing.assert_allclose(copies.mass, MASSES[1], atol=1e-4)
    np.testing.assert_allclose(
        spread(np.asarray(copies.mass)), spread(MASSES[1]), rtol=1e-3
    )


def test_derivatives():
    weights = R.normal(size=40)
    loss = lambda masses, w, epsilon: jnp.vdot(weights, found(masses, w, epsilon).mass)
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(MASSES, WEIGHTS, EPSILON)
    step = np.zeros_like(MASSES)
    step[0, 12], step[0, 15] = 1e-7, -1e-7
    change = loss(MASSES + step, WEIGHTS, EPSILON) - loss(
        MASSES - step, WEIGHTS, EPSILON
    )
    np.testing.assert_allclose(np.sum(slopes[0] * step), change / 2, rtol=1e-5)
    step = np.array([1e-6, 0])
    change = loss(MASSES, WEIGHTS + step, EPSILON) - loss(
        MASSES, WEIGHTS - step, EPSILON
    )
    np.testing.assert_allclose(slopes[1][0], change / 2e-6, rtol=1e-5)
    change = loss(MASSES, WEIGHTS, EPSILON + 1e-7) - loss(
        MASSES, WEIGHTS, EPSILON - 1e-7
    )
    np.testing.assert_allclose(slopes[2], change / 2e-7, rtol=1e-4, atol=1e-6)


def test_other_supports_and_zeros():
    y = np.linspace(0.1, 0.9, 25)
    costs = np.stack([(GRID[:, None] - y[None]) ** 2] * 2)
    own = (y[:, None] - y[None]) ** 2
    masses = np.where(MASSES > 1e-3, MASSES, 0)
    masses /= masses.sum(1, keepdims=True)
    out = debiased_barycentre(costs, masses, epsilon=EPSILON, self_cost=own)
    assert out.converged
    assert jnp.isfinite(out.mass).all()
    shared = debiased_barycentre(costs[0], masses, epsilon=EPSILON, self_cost=own)
    np.testing.assert_allclose(out.mass, shared.mass, atol=1e-12)
    gradient = jax.grad(
        lambda a: debiased_barycentre(costs, a, epsilon=EPSILON, self_cost=own).mass[3]
    )(masses)
    assert jnp.isfinite(gradient).all()
    narrow = debiased_barycentre(
        costs[0].astype(np.float32), masses.astype(np.float32),
        epsilon=EPSILON, self_cost=own.astype(np.float32),
    )  # fmt: skip
    assert narrow.mass.dtype == jnp.float32
    np.testing.assert_allclose(narrow.mass, out.mass, atol=2e-4)


def test_failures():
    few = debiased_barycentre(COST, MASSES, epsilon=EPSILON, steps=2)
    assert few.status == Status.MAX_STEPS
    assert "2 measures" in repr(few)
    assert found(-MASSES, WEIGHTS, EPSILON).status == Status.INVALID_INPUT
    assert jnp.isnan(found(MASSES, WEIGHTS, np.nan).mass).all()
    for message, costs, options in (
        ("self_cost must be given", COST[:, :30], {}),
        (r"self_cost must have shape \[m, m\]", COST[:, :30], {"self_cost": COST}),
        ("masses must have shape", COST[:30, :30], {}),
        ("costs must be finite", COST * np.nan, {}),
        ("steps must be at least 1", COST, {"steps": 0}),
    ):
        with pytest.raises(ValueError, match=message):
            debiased_barycentre(costs, MASSES, epsilon=EPSILON, **options)
