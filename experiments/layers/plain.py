"""The model in plain JAX: parameters in a dictionary, a function of them."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxsns
from experiments.layers.data import CLASSES, DIMENSION

WIDTH, PROTOTYPES = 16, 8


def _dense(key: jax.Array, size_in: int, size_out: int) -> dict[str, jax.Array]:
    weights = jax.random.normal(key, (size_in, size_out)) / size_in**0.5
    return {"weights": weights, "bias": jnp.zeros(size_out)}


def make(key: jax.Array) -> dict[str, Any]:
    """Parameters."""
    keys = jax.random.split(key, 4)
    return {
        "first": _dense(keys[0], DIMENSION, WIDTH),
        "second": _dense(keys[1], WIDTH, WIDTH),
        "prototypes": jax.random.normal(keys[2], (PROTOTYPES, WIDTH)),
        "head": _dense(keys[3], PROTOTYPES * WIDTH, CLASSES),
    }


def _apply(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["weights"] + layer["bias"]


def embed(parameters: dict[str, Any], points: jax.Array) -> jax.Array:
    """[..., n, WIDTH] features of points."""
    x = jax.nn.gelu(_apply(parameters["first"], points))
    return _apply(parameters["second"], x)


def logits(parameters: dict[str, Any], points: jax.Array, mask: jax.Array):
    """[batch, CLASSES] from sets [batch, n, 3]."""
    features = embed(parameters, points)
    pooled = jaxsns.transport_pooling(features, parameters["prototypes"], where=mask)
    return _apply(parameters["head"], pooled.reshape(len(pooled), -1))


def logits_of_mean(parameters: dict[str, Any], points: jax.Array, mask: jax.Array):
    """Mean pooling, with the same number of parameters: what to compare with."""
    features = embed(parameters, points)
    mean = jnp.mean(features, axis=1, where=mask[..., None])
    wide = jnp.tile(mean, (1, PROTOTYPES))
    return _apply(parameters["head"], wide)
