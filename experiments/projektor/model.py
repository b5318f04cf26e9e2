"""The scaling model: accuracy as a function of mixture, distance and size.

At one size the accuracy is a quadratic in the shares, and a quadratic in the shares
times the distance of the mixture from the target; between sizes it is linear in log
size. Source: Kang et al., "Performance Scaling via Optimal Transport" (NeurIPS 2023).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.projektor.distance import calibrate

STEP, DECAY, STEPS = 0.1, 0.9, 40  # of the ascent; ten steps long in all
LOWEST = 0.01  # share that every source keeps, so that its images have potentials


def quadratic(p: jax.Array, distance: jax.Array) -> jax.Array:
    """[2 sources] terms: the shares alone. Their constant is in them: they sum to 1."""
    return jnp.concatenate([p**2, p])


def published(p: jax.Array, distance: jax.Array) -> jax.Array:
    """[4 sources] terms: the shares, and the shares times the distance."""
    shares = quadratic(p, distance)
    return jnp.concatenate([shares, distance * shares])


def line(p: jax.Array, distance: jax.Array) -> jax.Array:
    """[2] terms: a line in the distance."""
    return jnp.stack([jnp.ones_like(distance), distance])


FORMS = {"projektor": published, "shares alone": quadratic, "distance alone": line}


class Scaling(NamedTuple):
    """Coefficients at two sizes."""

    small: jax.Array
    large: jax.Array
    sizes: jax.Array  # [2]


def fit(rows: jax.Array, small: np.ndarray, large: np.ndarray, sizes) -> Scaling:
    """Least squares on measured accuracies [k] of mixtures with terms [k, t]."""
    matrix = np.asarray(rows)
    # Of equal fits the smallest: the terms depend on each other if mixtures are few.
    solved = [np.linalg.lstsq(matrix, y, rcond=1e-6)[0] for y in (small, large)]
    return Scaling(*map(jnp.asarray, solved), jnp.asarray(sizes, matrix.dtype))


def project(small: jax.Array, large: jax.Array, sizes: jax.Array, size: jax.Array):
    """Accuracy at `size`, on the line in log size through those at two sizes."""
    log = jnp.log(sizes)
    along = (jnp.log(size) - log[0]) / (log[1] - log[0])
    return small + along * (large - small)


def predict(scaling: Scaling, row: jax.Array, size: jax.Array) -> jax.Array:
    """[] accuracy at `size`."""
    return project(row @ scaling.small, row @ scaling.large, scaling.sizes, size)


@jax.jit
def to_simplex(p: jax.Array) -> jax.Array:
    """Nearest shares that sum to one and are at least LOWEST."""
    n = p.shape[0]
    room = 1 - n * LOWEST
    ordered = -jnp.sort(-(p - LOWEST))
    number = jnp.arange(1, n + 1, dtype=p.dtype)
    excess = (jnp.cumsum(ordered) - room) / number
    last = jnp.sum((ordered > excess).astype(jnp.int32)) - 1
    return LOWEST + jnp.maximum(p - LOWEST - excess[last], 0)


Slope = Callable[[jax.Array], jax.Array]


def slope_of(
    scaling: Scaling, form: Callable, size: float, evaluate: Callable
) -> Slope:
    """Calibrated gradient of the predicted accuracy at `size`, as a function of p.

    evaluate: p -> the distance, its calibrated gradient, and whether both are right.
    """

    @jax.jit
    def parts(p, distance):
        def predicted(p, distance):
            return predict(scaling, form(p, distance), jnp.asarray(size))

        return jax.grad(predicted, argnums=(0, 1))(p, distance)

    def slope(p):
        distance, gradient, _ = evaluate(p)
        by_share, by_distance = parts(p, distance)
        return calibrate(by_share, p) + by_distance * gradient

    return slope


def ascend(slope: Slope, start: jax.Array) -> np.ndarray:
    """[sources] mixture that is reached along a calibrated gradient."""
    p = start
    for number in range(STEPS):
        up = slope(p)
        # A length in shares, so that the unit of what is climbed does not matter.
        p = to_simplex(p + STEP * DECAY**number * up / jnp.max(jnp.abs(up)))
    return np.asarray(p)
