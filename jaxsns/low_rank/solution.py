"""What `solve_low_rank` returns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import hints
from jaxsns.numerics import matmul
from jaxsns.solution import require_converged
from jaxsns.status import Status, code


def inverse(g: jax.Array) -> jax.Array:
    """[r] 1 / g, 0 for a cluster without mass."""
    return jnp.where(g > 0, 1 / jnp.where(g > 0, g, 1), 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class LowRankSolution:
    """Plan P = Q diag(1 / g) R^T of rank at most r, of one problem.

    Attributes:
      q: [n, r] mass that each row gives to each cluster; its row sums are a.
      r: [m, r] mass that each column gets from each cluster; its row sums are b.
      g: [r] mass of the clusters; 0 where one is not used.
      value: [] <C, P>, without entropy. Its derivative holds q, r and g fixed.
      full_cost: [] <C, P> of the plan of full rank that was clustered.
      error: [] marginal error of that plan, relative.
      status: [] int32, its `Status`. The marginals of q and r are exact in any case.
    """

    q: jax.Array
    r: jax.Array
    g: jax.Array
    value: jax.Array
    full_cost: jax.Array
    error: jax.Array
    status: jax.Array

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    @property
    def converged(self) -> jax.Array:
        """[] bool: the plan of full rank converged."""
        return self.status == code(Status.CONVERGED)

    def apply(self, v: jax.Array, axis: int = 1) -> jax.Array:
        """Plan times v ([m] or [m, k] -> [n, ...]); axis=0: its transpose times v.

        O((n + m) r) time a vector.
        """
        left, right = (self.q, self.r) if axis == 1 else (self.r, self.q)
        table = v[:, None] if v.ndim == 1 else v
        out = matmul(left, inverse(self.g)[:, None] * matmul(right.T, table))
        return out[:, 0] if v.ndim == 1 else out

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of points [m, d] under each row of the plan, [n, d]; axis=0: columns."""
        mass = jnp.sum(self.q if axis == 1 else self.r, axis=1)
        return self.apply(points, axis) * inverse(mass)[:, None]

    def plan(self) -> jax.Array:
        """[n, m] the plan, in mass."""
        return matmul(self.q * inverse(self.g)[None, :], self.r.T)

    def raise_if_failed(self) -> "LowRankSolution":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """Say how large the factors are, and how the solve went."""
        (n, rank), m = self.q.shape[-2:], self.r.shape[-2]
        head = f"LowRankSolution({n} x {m}, rank {rank}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        good = int(np.sum(np.asarray(self.converged)))
        return f"{head}, {good} of {np.size(self.status)} CONVERGED)"
