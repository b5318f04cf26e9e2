"""Costs in which many pairs cost the same, as whole numbers or distances of pixels.

Where many trees are optimal, pivots go round among them without gain. Costs that differ
by a small part of the least difference have one optimal tree, and it is optimal for the
costs themselves unless many small parts add up. Source: Charnes (1952), perturbation.
"""

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact import costs

SAMPLE = 1024  # entries that are sorted to see whether costs tie [D46]
PART = 0.1  # of the usual difference between costs, at most, is added to one [D46]
SHARE = 0.5  # of the sample that ties where costs are said to tie [D46]


def differences(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([], []) share of a sample of costs that tie, and median difference of others."""
    size = cost.size
    stride = max(size // SAMPLE, 1) | 1  # odd, so that it meets all columns of most
    place = (jnp.arange(min(size, SAMPLE), dtype=jnp.int32) * stride) % size
    values = jnp.append(jnp.sort(cost.reshape(-1)[place]), jnp.inf)  # of one cost too
    gaps = jnp.where(jnp.isfinite(values[1:]), jnp.diff(values), jnp.nan)
    ties = gaps <= costs.rounding(cost)
    number = jnp.maximum(jnp.sum(~jnp.isnan(gaps), dtype=cost.dtype), 1)
    share = jnp.sum(ties, dtype=cost.dtype) / number
    usual = jnp.nanmedian(jnp.where(ties, jnp.nan, gaps))
    return share, jnp.where(jnp.isnan(usual), 0, usual)


def untied(cost: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([n, m], []) costs hardly above `cost` that do not tie, and whether `cost` does.

    They are `cost` itself if it does not.
    """
    share, usual = differences(cost)
    tied = share >= SHARE

    def shifted() -> jax.Array:
        noise = jax.random.uniform(jax.random.key(0), cost.shape, cost.dtype)
        return cost + PART * usual * noise

    return control.cond(tied, shifted, lambda: cost), tied
