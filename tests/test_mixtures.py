"""Transport between Gaussian mixtures, against SciPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import linear_program
from scipy.linalg import sqrtm
from scipy.stats import multivariate_normal

from jaxsns import gaussian
from jaxsns.gaussian import Mixture

R = np.random.default_rng(0)


def mixture(k, d=2, far=2.0):
    roots = R.normal(size=(k, d, d))
    covs = roots @ roots.transpose(0, 2, 1) + 0.2 * np.eye(d)
    weights = R.random(k) + 0.2
    return Mixture(weights / weights.sum(), far * R.normal(size=(k, d)), covs)


def squared(m, s, n, t):
    root = np.real(sqrtm(s))
    cross = np.real(sqrtm(root @ t @ root))
    return ((m - n) ** 2).sum() + np.trace(s + t - 2 * cross)


def matrix(x, y):
    return np.array(
        [
            [squared(m, s, n, t) for n, t in zip(y.means, y.covs, strict=True)]
            for m, s in zip(x.means, x.covs, strict=True)
        ]
    )


def monge(s, t):
    root = np.real(sqrtm(s))
    inverse = np.linalg.inv(root)
    return inverse @ np.real(sqrtm(root @ t @ root)) @ inverse


@jax.jit
def transport(x, y, epsilon):
    return gaussian.mixture_transport(x, y, epsilon=epsilon, tolerance=1e-11)


def test_value_and_map():
    x, y = mixture(3), mixture(4)
    out = transport(x, y, 1e-3)
    assert out.converged
    exact = linear_program(matrix(x, y), x.weights, y.weights)
    np.testing.assert_allclose(out.value, exact, atol=2e-2 * exact)
    sharp = transport(x, y, 1e-4)
    assert exact - 1e-9 <= sharp.value <= exact + 1e-3
    plan = np.asarray(out.plan())
    np.testing.assert_allclose(plan.sum(1), x.weights, atol=1e-9)
    points = R.normal(size=(5, 2))
    density = np.array(
        [w * multivariate_normal(m, s).pdf(points) for w, m, s in zip(*x, strict=True)]
    )
    expected = np.zeros((5, 2))
    for k in range(3):
        for j in range(4):
            moved = y.means[j] + (points - x.means[k]) @ monge(x.covs[k], y.covs[j]).T
            expected += (density[k] * plan[k, j] / x.weights[k])[:, None] * moved
    expected /= density.sum(0)[:, None]
    np.testing.assert_allclose(out.map(points), expected, atol=1e-7)
    moved = jax.jit(
        lambda x, y: gaussian.MixtureTransport(x, y, out.solution).map(points)
    )
    change = R.normal(size=(3, 2, 2))
    change += change.transpose(0, 2, 1)
    at = lambda h: moved(x._replace(covs=x.covs + h * change), y)
    slope = jax.jvp(at, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(slope, (at(1e-5) - at(-1e-5)) / 2e-5, atol=1e-7)


def test_interpolation():
    x, y = mixture(3), mixture(4)
    out = transport(x, y, 1e-3)
    middle = out.interpolate(0.3)
    assert middle.means.shape == (12, 2)
    np.testing.assert_allclose(middle.weights.sum(), 1)
    # Of one pair: the closed form of the barycentre of two Gaussians.
    t = monge(x.covs[1], y.covs[2])
    half = 0.7 * np.eye(2) + 0.3 * t
    np.testing.assert_allclose(middle.covs[6], half @ x.covs[1] @ half, atol=1e-10)
    np.testing.assert_allclose(middle.means[6], 0.7 * x.means[1] + 0.3 * y.means[2])


def test_derivatives():
    x, y = mixture(3), mixture(4)
    value = lambda x: transport(x, y, 5.0).value
    slope = jax.jit(jax.grad(value))(x)
    h = 1e-5
    step = np.zeros((3, 2, 2))
    step[1] = R.normal(size=(2, 2)) * h
    step += step.transpose(0, 2, 1)
    ends = [value(x._replace(covs=x.covs + s)) for s in (step, -step)]
    np.testing.assert_allclose(
        (slope.covs * step).sum(), (ends[0] - ends[1]) / 2, rtol=1e-6
    )
    step = np.zeros((3, 2))
    step[2, 0] = h
    ends = [value(x._replace(means=x.means + s)) for s in (step, -step)]
    np.testing.assert_allclose(
        slope.means[2, 0], (ends[0] - ends[1]) / (2 * h), rtol=1e-6
    )
    step = np.array([h, -h, 0])
    ends = [value(x._replace(weights=x.weights + s)) for s in (step, -step)]
    np.testing.assert_allclose(slope.weights @ step, (ends[0] - ends[1]) / 2, rtol=1e-6)


def test_barycentre():
    x, shift = mixture(3, far=8.0), np.array([1.0, -2.0])
    others = [x, x._replace(means=x.means + shift)]
    start = x._replace(means=x.means + 0.1, covs=x.covs + np.eye(2))
    out = jax.jit(
        lambda xs, start: gaussian.mixture_barycentre(
            xs, start, weights=np.array([1.0, 3.0]), epsilon=1e-2, steps=4
        )
    )(others, start)
    np.testing.assert_allclose(out.mixture.means, x.means + 0.75 * shift, atol=1e-8)
    np.testing.assert_allclose(out.mixture.covs, x.covs, atol=1e-8)
    assert out.change < 1e-8
    np.testing.assert_allclose(
        out.value, 5 * (0.25 * 0.75**2 + 0.75 * 0.25**2), rtol=1e-6
    )


def test_what_is_refused():
    x = mixture(3)
    for kind, message, y in (
        (TypeError, "y must be a Mixture", np.ones(3)),
        (ValueError, "weights and means of y", x._replace(weights=np.ones(2))),
        (ValueError, "covs of y must have shape", x._replace(covs=np.eye(2))),
        (ValueError, "covs of y must be finite", x._replace(covs=-x.covs)),
        (ValueError, "same dimension", mixture(2, 3)),
        (ValueError, "equal totals", x._replace(weights=2 * x.weights)),
    ):
        with pytest.raises(kind, match=message):
            gaussian.mixture_transport(x, y)
    with pytest.raises(ValueError, match="at least one"):
        gaussian.mixture_barycentre([], x)
    bad = transport(x, x._replace(covs=-x.covs), 0.1)
    assert jnp.isnan(bad.value)
