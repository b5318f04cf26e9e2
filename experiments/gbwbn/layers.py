"""Batch normalisation on symmetric positive definite matrices, two geometries.

A layer takes a batch [n, k, k], parameters and running statistics, and returns the
normalised batch and new statistics. The mean of the batch is a constant for the
gradient, as in the paper.
Source: arXiv 2504.00660 (GBWBN); log-Euclidean: Arsigny et al. (2006).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import gaussian
from jaxsns.gaussian.matrix_sqrt import in_basis, spectrum, sqrtm, symmetric_part

MOMENTUM = 0.1
SMALL = 1e-5


class Statistics(NamedTuple):
    """Running mean and variance of what a layer sees."""

    mean: jax.Array  # [k, k] a covariance, or a mean of logarithms
    variance: jax.Array  # [] mean squared distance from the mean


@jax.custom_jvp
def logm(x: jax.Array) -> jax.Array:
    """[..., k, k] logarithm of a positive definite matrix; one derivative only."""
    values, vectors = spectrum(x)
    return in_basis(vectors, jnp.log(values))


@logm.defjvp
def _logm_jvp(primals, tangents):
    values, vectors = spectrum(primals[0])
    a, b = values[..., :, None], values[..., None, :]
    ratio = (a - b) / (a + b)
    near = jnp.abs(ratio) < 1e-3
    # Divided difference of the logarithm, 2 artanh(ratio) / (a - b), by its series
    # where the difference would cancel.
    series = 2 * (1 + ratio**2 / 3 + ratio**4 / 5) / (a + b)
    difference = (jnp.log(a) - jnp.log(b)) / jnp.where(near, 1, a - b)
    inside = (vectors.mT @ tangents[0] @ vectors) * jnp.where(near, series, difference)
    return in_basis(vectors, jnp.log(values)), vectors @ inside @ vectors.mT


def _advance(old: jax.Array, new: jax.Array) -> jax.Array:
    return (1 - MOMENTUM) * old + MOMENTUM * new


def log_euclidean(x: jax.Array, bias: jax.Array, scale: jax.Array, running, train):
    """Normalise logarithms; bias [k] is the logarithm of a diagonal, scale [] > 0.

    The result [n, k, k] is in the logarithmic domain, where the next layer works.
    """
    logs = logm(x)
    batch = Statistics(jnp.mean(logs, axis=0), jnp.mean(jnp.sum(jnp.var(logs, axis=0))))
    batch = jax.lax.stop_gradient(batch)
    used = batch if train else running
    factor = scale / jnp.sqrt(used.variance + SMALL)
    result = factor * (logs - used.mean[None]) + jnp.diag(bias)[None]
    new = jax.tree.map(_advance, running, batch)
    return result, jax.lax.stop_gradient(new)


def to_identity(mean: jax.Array, tangents: jax.Array) -> jax.Array:
    """[n, k, k] tangents at `mean` carried to the identity by parallel transport.

    In the eigenbasis it multiplies by (2 / (x_i + x_j))^1/2, so its inverse is the
    root of the operator V -> (G V + V G) / 2. As a k^2 x k^2 matrix that has a root
    with a safe derivative, and there is one for a batch.
    """
    identity = jnp.eye(len(mean))
    operator = (jnp.kron(mean, identity) + jnp.kron(identity, mean)) / 2
    flat = tangents.reshape(len(tangents), -1).T
    return jnp.linalg.solve(sqrtm(operator), flat).T.reshape(tangents.shape)


def normalise(
    x: jax.Array, mean: jax.Array, variance: jax.Array, bias: jax.Array, scale: Any
) -> jax.Array:
    """[n, k, k] moved from around `mean` to around diag(bias), spread to `scale`.

    Logarithm at the mean, parallel transport to the identity and from there to the
    bias, and exponential. A diagonal bias is no restriction: the layers on both
    sides are free to rotate.
    """
    tangents = jax.vmap(gaussian.logarithm, in_axes=(None, 0))(mean, x)
    at_identity = to_identity(mean, tangents)
    sums = bias[:, None] + bias[None, :]
    factor = scale / jnp.sqrt(variance + SMALL)
    at_bias = factor * at_identity * jnp.sqrt(sums / 2)[None]
    root = jnp.eye(len(bias))[None] + at_bias / sums[None]
    return symmetric_part((root * bias[None, None, :]) @ root.mT)


def bures(x, bias, scale, running, train, *, metric_factor=None, root=False):
    """Normalise in the (generalised) Bures-Wasserstein metric.

    Args:
      x: [n, k, k] covariances.
      bias: [k] logarithm of the diagonal of the new mean.
      scale: [] > 0 new standard deviation.
      running: statistics of what is normalised.
      train: use (and learn) the statistics of the batch, not the running ones.
      metric_factor: [k, k] lower triangular L, the metric is M = L L^T; or None.
      root: normalise the square roots (power deformation with theta = 1/2).
    """
    y = sqrtm(x) if root else x
    bias = jnp.exp(bias)
    metric, white, colour = None, (lambda z: z), (lambda z: z)
    if metric_factor is not None:
        metric = jax.lax.stop_gradient(metric_factor @ metric_factor.T)
        inverse = jnp.linalg.inv(metric_factor)
        white = lambda z: symmetric_part(inverse @ z @ inverse.T)
        colour = lambda z: symmetric_part(metric_factor @ z @ metric_factor.T)
    # One step from the arithmetic mean, in the coordinates of the data: constant for
    # the gradient there, but not in those of the metric, which is learned.
    mean = gaussian.barycentre(jax.lax.stop_gradient(y), metric=metric, max_steps=1)
    mean = jax.lax.stop_gradient(mean.matrix)
    centre, y = white(mean if train else running.mean), white(y)
    variance = running.variance
    if train:
        variance = jnp.mean(jax.vmap(gaussian.bures, in_axes=(None, 0))(centre, y))
    result = colour(normalise(y, centre, variance, bias, scale))
    moved = gaussian.geodesic(running.mean, mean, MOMENTUM, metric=metric)
    new = Statistics(moved, _advance(running.variance, variance))
    result = symmetric_part(result @ result) if root else result
    return result, jax.lax.stop_gradient(new)
