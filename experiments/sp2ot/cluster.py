"""Self-labelling: pseudo-labels from the head, and the head from pseudo-labels.

The head is a cosine classifier on fixed features, with one prototype a cluster. One
program for all rounds; the way to label is a function of the costs and the share.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.sp2ot import labels

TEMPERATURE = 0.2  # of cosines
ROUNDS = 60  # of labelling; the share rises along them
STEPS = 10  # of Adam a round
RATE = 0.02


class Run(NamedTuple):
    """Clusters, and how the rounds went."""

    found: jax.Array  # [n] cluster of each image
    history: jax.Array  # [rounds, n] cluster of each image before each round
    converged: jax.Array  # [rounds] bool: every solve of the round
    steps: jax.Array  # [rounds] solves of the round


def log_probabilities(prototypes: jax.Array, features: jax.Array) -> jax.Array:
    """[n, k] log p of each cluster."""
    length = jnp.linalg.norm(prototypes, axis=1, keepdims=True)
    cosine = features @ (prototypes / length).T
    return jax.nn.log_softmax(cosine / TEMPERATURE)


def train(features: jax.Array, start: jax.Array, label: Callable) -> Run:
    """Cluster features [n, d] from prototypes [k, d].

    label: (cost [n, k], share []) -> `labels.Labels`.
    """
    optimiser = optax.adam(RATE)

    def loss(prototypes, weights):
        # An image counts as much as it was given a label.
        log = log_probabilities(prototypes, features)
        return -jnp.sum(weights * log) / jnp.sum(weights)

    def one_round(carry, progress):
        log = log_probabilities(carry[0], features)
        given = label(-log, labels.ramp(progress))

        def step(carry, _):
            prototypes, state = carry
            slope = jax.grad(loss)(prototypes, given.weights)
            change, state = optimiser.update(slope, state)
            return (optax.apply_updates(prototypes, change), state), None

        carry, _ = jax.lax.scan(step, carry, None, length=STEPS)
        return carry, (jnp.argmax(log, axis=1), given.converged, given.steps)

    progress = jnp.linspace(0, 1, ROUNDS, dtype=features.dtype)
    first = (start, optimiser.init(start))
    (prototypes, _), records = jax.lax.scan(one_round, first, progress)
    found = jnp.argmax(log_probabilities(prototypes, features), axis=1)
    return Run(found, *records)
