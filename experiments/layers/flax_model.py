"""The same model as a flax module."""

import flax.linen as nn
import jax

import jaxsns
from experiments.layers.data import CLASSES
from experiments.layers.plain import PROTOTYPES, WIDTH


class Classifier(nn.Module):
    """Embeds points, pools them by transport to prototypes, and classifies."""

    @nn.compact
    def __call__(self, points: jax.Array, mask: jax.Array) -> jax.Array:
        """[batch, CLASSES] from sets [batch, n, 3]."""
        features = nn.Dense(WIDTH)(nn.gelu(nn.Dense(WIDTH)(points)))
        shape = (PROTOTYPES, WIDTH)
        prototypes = self.param("prototypes", nn.initializers.normal(1.0), shape)
        pooled = jaxsns.transport_pooling(features, prototypes, where=mask)
        return nn.Dense(CLASSES)(pooled.reshape(len(pooled), -1))


def make(key: jax.Array, points: jax.Array, mask: jax.Array):
    """Parameters."""
    return Classifier().init(key, points, mask)


def logits(parameters, points: jax.Array, mask: jax.Array) -> jax.Array:
    """[batch, CLASSES] from sets [batch, n, 3]."""
    return Classifier().apply(parameters, points, mask)
