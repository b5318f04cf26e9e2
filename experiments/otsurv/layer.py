"""The layer: a share of a bag's patches is assigned to prototypes.

Every patch gives at most 1 / n, the patches together the share, and prototypes that
get unequal mass pay a penalty. This is `solve_partial` with a penalised column side.
"""

import jax
import jax.numpy as jnp

import jaxsns

EPSILON, GAMMA = 0.1, 1.0  # in units of the largest cost; as published
RAMP = 10  # epochs until all patches take part


def ramp(epoch: int) -> float:
    """Share of the mass in an epoch: a sigmoid ramp, raised by 0.1, at most 1."""
    left = 1 - min(epoch / RAMP, 1.0)
    return min(float(jnp.exp(-5 * left**2)) + 0.1, 1.0)


def distances(features: jax.Array, prototypes: jax.Array, mask: jax.Array) -> jax.Array:
    """[n, k] distances of patches to prototypes over the largest one of the bag."""
    cost = jaxsns.PointCloud(features, prototypes, "euclidean").dense().cost
    return cost / jnp.max(jnp.where(mask[:, None], cost, 0))


def assign(
    cost: jax.Array, mask: jax.Array, share: jax.Array, **options
) -> jaxsns.PartialSolution:
    """Assign the patches [n] of the mask to prototypes at costs [n, k]."""
    rows = jaxsns.ragged.masses(mask, mask.astype(cost.dtype))
    return jaxsns.solve_partial(
        cost, rows, share=share, epsilon=EPSILON, rho_b=GAMMA, **options
    )
