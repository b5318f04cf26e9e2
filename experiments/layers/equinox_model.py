"""The same model as an equinox module."""

import equinox as eqx
import jax

import jaxsns
from experiments.layers.data import CLASSES, DIMENSION
from experiments.layers.plain import PROTOTYPES, WIDTH


class Classifier(eqx.Module):
    """Embeds points, pools them by transport to prototypes, and classifies."""

    embedding: eqx.nn.MLP
    prototypes: jax.Array
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array):
        """Draw the parameters."""
        keys = jax.random.split(key, 3)
        sizes = {"width_size": WIDTH, "depth": 1, "activation": jax.nn.gelu}
        self.embedding = eqx.nn.MLP(DIMENSION, WIDTH, key=keys[0], **sizes)
        self.prototypes = jax.random.normal(keys[1], (PROTOTYPES, WIDTH))
        self.head = eqx.nn.Linear(PROTOTYPES * WIDTH, CLASSES, key=keys[2])

    def __call__(self, points: jax.Array, mask: jax.Array) -> jax.Array:
        """[CLASSES] from one set [n, 3]; `jax.vmap` makes the batch."""
        features = jax.vmap(self.embedding)(points)
        pooled = jaxsns.transport_pooling(features, self.prototypes, where=mask)
        return self.head(pooled.reshape(-1))


def make(key: jax.Array):
    """Arrays of the model, and the rest of it."""
    return eqx.partition(Classifier(key), eqx.is_array)


def logits(rest, parameters, points: jax.Array, mask: jax.Array) -> jax.Array:
    """[batch, CLASSES] from sets [batch, n, 3]."""
    return jax.vmap(eqx.combine(parameters, rest))(points, mask)
