"""Core of the experiment on batch normalisation, on tiny input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from experiments.gbwbn import layers, model
from jaxsns import gaussian

R = np.random.default_rng(0)
Z = R.normal(size=(8, 3, 9))
X = Z @ np.swapaxes(Z, 1, 2) / 9
V = R.normal(size=(3, 3))
V = V + V.T


@pytest.mark.parametrize(
    "a", [X[0], np.eye(3), np.diag([1.0, 1.0 + 1e-5, 1e-6])], ids=range(3)
)
def test_logarithm_and_its_derivative_match_scipy(a):
    value, change = jax.jvp(layers.logm, (jnp.asarray(a),), (jnp.asarray(V),))
    np.testing.assert_allclose(value, scipy.linalg.logm(a), atol=1e-12)
    # The derivative of the logarithm inverts that of the exponential.
    _, back = scipy.linalg.expm_frechet(np.asarray(value), np.asarray(change))
    np.testing.assert_allclose(back, V, atol=1e-9)


def test_normalised_batch_has_the_wanted_mean_and_spread():
    x, bias, scale = jnp.asarray(X), jnp.asarray([4.0, 5.0, 6.0]), 0.2
    mean = gaussian.barycentre(x).matrix
    apart = jax.vmap(gaussian.bures, in_axes=(None, 0))
    out = layers.normalise(x, mean, jnp.mean(apart(mean, x)), bias, scale)
    np.testing.assert_allclose(
        gaussian.barycentre(out).matrix, np.diag(bias), atol=1e-9
    )
    # Transport keeps lengths, so only the scale is left; SMALL is 1e-5 of it.
    spread = jnp.mean(apart(jnp.diag(bias), out))
    np.testing.assert_allclose(spread, scale**2, rtol=1e-4)


@pytest.mark.parametrize("variant", ["log-Euclidean", "GBW, root"])
def test_classifier_has_a_finite_gradient(variant, monkeypatch):
    for name, value in {"CHANNELS": 4, "HIDDEN": 3, "TRAIN": 8, "TEST": 4}.items():
        monkeypatch.setattr(model, name, value)
    data = model.make_data(0, 2)  # of rank two
    parameters = model.make_parameters(jax.random.key(0))
    parameters["weights"] = jnp.ones_like(parameters["weights"])

    @jax.jit
    @jax.grad
    def slope(parameters, x):
        running = model.make_statistics(variant)
        scores, _ = model.apply(variant, parameters, running, x, train=True)
        return jnp.sum(scores[:, 0] ** 2)

    for leaf in jax.tree.leaves(slope(parameters, jnp.asarray(data["train"]))):
        assert np.all(np.isfinite(leaf))
