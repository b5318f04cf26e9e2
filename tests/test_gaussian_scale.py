"""Gaussians in any unit: values and derivatives of covariances from 1e-20 to 1e20."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsns import gaussian

R = np.random.default_rng(8)
D = 3


def _definite():
    x = R.normal(size=(D, 2 * D))
    return (x @ x.T / D).astype(np.float32)


A, B, V, W = _definite(), _definite(), _definite(), _definite()
WEIGHTS = [np.float32(1), W[0], W]  # of a number, a vector, a matrix
SMALL, LARGE = 2.0**-66, 2.0**66  # 1.4e-20 and 7.4e19
# Each with the power of the unit of covariances that its value has.
FUNCTIONS = {
    "bures": (gaussian.bures, 1),
    "squared_distance": (
        lambda a, b: gaussian.squared_distance(0 * a[0], a, 0 * b[0], b),
        1,
    ),
    "optimal_map": (gaussian.optimal_map, 0),
    "affine_map": (lambda a, b: gaussian.affine_map(W[1], a, W[2], b)[1], 0),
    "logarithm": (gaussian.logarithm, 1),
    "exponential": (lambda a, b: gaussian.exponential(a, b - a), 1),
    "geodesic": (lambda a, b: gaussian.geodesic(a, b, jnp.float32(0.3)), 1),
    "barycentre": (lambda a, b: gaussian.barycentre(jnp.stack([a, b])).matrix, 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_and_derivatives_have_no_unit(name):
    """Against those in the unit 1, times powers of it; exact where that is one of 4."""
    function, power = FUNCTIONS[name]

    def total(a, b):
        out = function(a, b)
        return jnp.sum(out * WEIGHTS[out.ndim])

    @jax.jit
    def derivatives(a, b, v, cotangent):
        value, pull = jax.vjp(total, a, b)
        slopes = pull(cotangent)
        gradient = lambda a: jax.grad(lambda a: cotangent * total(a, b))(a)
        return value, *slopes, jax.jvp(gradient, (a,), (v,))[1]

    want = [np.asarray(x, float) for x in derivatives(A, B, V, np.float32(1))]
    cases = [(s, 1.0) for s in (SMALL, LARGE)] + [(1.0, c) for c in (SMALL, LARGE)]
    cases += [(SMALL, SMALL), (LARGE, LARGE)]
    if power:
        cases += [(SMALL, LARGE), (LARGE, SMALL)]
    for unit, cotangent in cases:
        s, c = np.float32(unit), np.float32(cotangent)
        got = derivatives(s * A, s * B, s * V, c)
        factors = (unit**power, *3 * (cotangent * unit ** (power - 1),))
        for x, y, factor in zip(got, want, factors, strict=True):
            if 1e-37 < factor < 1e37:
                scale = np.abs(y).max()
                np.testing.assert_allclose(
                    np.asarray(x, float) / factor, y, atol=1e-6 * scale
                )


def test_covariances_of_different_sizes():
    """Variances 1e-20 and 1e20: T = (b / a)^1/2 and its derivatives in closed form."""
    eye = np.eye(D, dtype=np.float32)
    both = lambda f: jax.jit(jax.value_and_grad(f, (0, 1)))
    mapped = both(lambda x, y: gaussian.optimal_map(x * eye, y * eye)[0, 0])
    distance = both(lambda x, y: gaussian.bures(x * eye, y * eye))
    for a, b in ((SMALL, 1.0), (1.0, LARGE), (SMALL, LARGE), (LARGE, SMALL)):
        value, (_, slope) = mapped(np.float32(a), np.float32(b))
        np.testing.assert_allclose(value, (b / a) ** 0.5, rtol=1e-6)
        np.testing.assert_allclose(slope, 0.5 / (a * b) ** 0.5, rtol=1e-6)
        value, slopes = distance(np.float32(a), np.float32(b))
        np.testing.assert_allclose(value, D * (a**0.5 - b**0.5) ** 2, rtol=1e-6)
        want = D * (1 - (b / a) ** 0.5), D * (1 - (a / b) ** 0.5)
        np.testing.assert_allclose(slopes, want, rtol=2e-6)
