"""Risk of a bag: encode its patches, pool them, read the risk off.

All variants have the same encoder; a pooling turns [n, WIDTH] features into tokens,
and a head with one hidden layer reads all of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.otsurv import layer
from experiments.otsurv.data import DIMENSION

WIDTH = 16  # of features
PROTOTYPES = 16  # as published
HIDDEN = 32  # of the head

Parameters = dict[str, jax.Array]


class Pooled(NamedTuple):
    """What a pooling hands on."""

    tokens: jax.Array  # [tokens, WIDTH]
    converged: jax.Array  # [] bool: of the solver, if there is one


def by_mean(
    parameters: Parameters, features: jax.Array, mask: jax.Array, share: jax.Array
) -> Pooled:
    """Pool by the mean of all patches."""
    real = mask.astype(features.dtype)
    return Pooled((real @ features / jnp.sum(real))[None], jnp.asarray(True))


def by_attention(
    parameters: Parameters, features: jax.Array, mask: jax.Array, share: jax.Array
) -> Pooled:
    """Pool by gated attention, one token."""
    gate = jax.nn.sigmoid(features @ parameters["gate"])
    score = (jnp.tanh(features @ parameters["look"]) * gate) @ parameters["score"]
    weight = jax.nn.softmax(jnp.where(mask, score, -jnp.inf))
    return Pooled((weight @ features)[None], jnp.asarray(True))


def by_many_attentions(
    parameters: Parameters, features: jax.Array, mask: jax.Array, share: jax.Array
) -> Pooled:
    """Pool by attention of each prototype: as many tokens as transport has."""
    score = features @ parameters["prototypes"].T / WIDTH**0.5
    weight = jax.nn.softmax(jnp.where(mask[:, None], score, -jnp.inf), axis=0)
    return Pooled(weight.T @ features, jnp.asarray(True))


def by_transport(
    parameters: Parameters, features: jax.Array, mask: jax.Array, share: jax.Array
) -> Pooled:
    """Pool by the plan to prototypes, one token each.

    The published token is plan^T features / share. Times the number of prototypes
    it is as large as a feature, like the tokens of the others.
    """
    cost = layer.distances(features, parameters["prototypes"], mask)
    solution = layer.assign(cost, mask, share)
    tokens = PROTOTYPES * (solution.plan().T @ features) / share
    return Pooled(tokens, solution.converged)


POOLINGS: dict[str, Callable[..., Pooled]] = {
    "mean": by_mean,
    "attention": by_attention,
    "attention, 16 heads": by_many_attentions,
    "transport": by_transport,
}
TOKENS = {"mean": 1, "attention": 1}  # the others: as many as prototypes


def _dense(key: jax.Array, rows: int, columns: int) -> jax.Array:
    weights = jax.random.normal(key, (rows, columns), jnp.float32)
    return weights * (2 / rows) ** 0.5


def encode(parameters: Parameters, patches: jax.Array) -> jax.Array:
    """[n, WIDTH] features of patches [n, DIMENSION].

    They are not negative, so the published shift by their minimum has nothing to do.
    """
    hidden = jax.nn.relu(patches @ parameters["encoder_1"] + parameters["bias_1"][None])
    return jax.nn.relu(hidden @ parameters["encoder_2"] + parameters["bias_2"][None])


def make_parameters(key: jax.Array, pooling: str, examples: jax.Array) -> Parameters:
    """Weights of a variant; prototypes start at features of examples [k, DIMENSION]."""
    keys = iter(jax.random.split(key, 7))
    zeros = lambda size: jnp.zeros(size, jnp.float32)
    parameters = {
        "encoder_1": _dense(next(keys), DIMENSION, 2 * WIDTH),
        "bias_1": zeros(2 * WIDTH),
        "encoder_2": _dense(next(keys), 2 * WIDTH, WIDTH),
        "bias_2": zeros(WIDTH),
    }
    tokens = TOKENS.get(pooling, PROTOTYPES)
    parameters["head_1"] = _dense(next(keys), tokens * WIDTH, HIDDEN)
    parameters["head_bias"] = zeros(HIDDEN)
    parameters["head_2"] = 0.1 * _dense(next(keys), HIDDEN, 1)
    if pooling == "attention":
        parameters["gate"] = _dense(next(keys), WIDTH, WIDTH)
        parameters["look"] = _dense(next(keys), WIDTH, WIDTH)
        parameters["score"] = _dense(next(keys), WIDTH, 1)[:, 0]
    if tokens > 1:
        parameters["prototypes"] = encode(parameters, examples)
    return parameters


def risk(
    pooling: str,
    parameters: Parameters,
    patches: jax.Array,
    mask: jax.Array,
    share: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """[] log hazard of a bag, and whether its solve converged."""
    features = encode(parameters, patches)
    tokens, converged = POOLINGS[pooling](parameters, features, mask, share)
    hidden = tokens.ravel() @ parameters["head_1"] + parameters["head_bias"]
    return (jax.nn.relu(hidden) @ parameters["head_2"])[0], converged


def size(parameters: dict[str, Any]) -> int:
    """Count the numbers that are trained."""
    return sum(x.size for x in parameters.values())
