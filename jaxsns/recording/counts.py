"""Work done by a solve."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import hints


class Counts(NamedTuple):
    """Work done, int32 scalars."""

    sweeps: jax.Array  # Sinkhorn sweeps: two products with the matrix each
    newton_steps: jax.Array  # Newton directions computed
    linear_steps: jax.Array  # products of the linear solver: two matrix products each
    sparse_steps: jax.Array  # products with a sparse model of the matrix
    passes: jax.Array  # exponentials of the whole matrix; a search of it counts as two

    __repr__ = hints.one_line

    def plus(self, **more: jax.Array | int) -> "Counts":
        """Add to some of the counts."""
        new = {k: (getattr(self, k) + v).astype(jnp.int32) for k, v in more.items()}
        return self._replace(**new)


def no_counts() -> Counts:
    """All counts at zero."""
    zero = jnp.asarray(0, jnp.int32)
    return Counts(zero, zero, zero, zero, zero)
