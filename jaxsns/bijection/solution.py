"""What `solve_bijection` returns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.solution import require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Bijection:
    """A permutation that sends points x to points y.

    Attributes:
      permutation: [n] int32: x_i goes to y_permutation[i].
      value: [] mean cost of the pairs. Its derivative in points, and in what the cost
        reads, holds the permutation fixed.
      gain: [] relative gain of the last three sweeps.
      status: [] int32, a `Status`.
      steps: [] int32 sweeps made.
    """

    permutation: jax.Array
    value: jax.Array
    gain: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def converged(self) -> jax.Array:
        """[] bool: the last three sweeps gained no more than the tolerance."""
        return self.status == code(Status.CONVERGED)

    @property
    def inverse(self) -> jax.Array:
        """[n] int32: y_j comes from x_inverse[j]."""
        return jnp.argsort(self.permutation, axis=-1).astype(jnp.int32)

    def raise_if_failed(self) -> "Bijection":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.gain)
        return self

    def __repr__(self) -> str:
        """Say how many points were matched, and how it went."""
        head = f"Bijection({self.permutation.shape[-1]} points"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.status.ndim:
            good = int(np.sum(np.asarray(self.converged)))
            return f"{head}, {good} of {self.status.size} CONVERGED)"
        return (
            f"{head}, {Status(int(self.status)).name}, value={float(self.value):.6g}, "
            f"gain={float(self.gain):.1e}, sweeps={int(self.steps)})"
        )
