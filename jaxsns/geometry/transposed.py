"""A streamed geometry seen from the other side: its rows are blocks, or divided."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxsns.geometry.dense import Dense
from jaxsns.geometry.streamed import Streamed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TransposedCost:
    """The costs of `other`, [m, n], with rows and columns exchanged: [n, m]."""

    other: Streamed

    stored: ClassVar[bool] = False
    has_kernel: ClassVar[bool] = False
    streams_rows: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        m, n = self.other.shape
        return n, m

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype in which the costs come out."""
        return self.other.dtype

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays behind it by name, for checks of their values."""
        return {"x": self.other.y, "y": self.other.x}

    def transposed(self) -> Streamed:
        """Return the costs with rows and columns exchanged."""
        return self.other

    def reduced(self, real_rows: jax.Array, real_columns: jax.Array) -> None:
        """Return no reduced costs: divided points are used as they are."""

    def formed(self) -> "TransposedCost":
        """Return the geometry on which a solve runs: this one."""
        return self

    def dense(self) -> Dense:
        """Form the cost matrix: O(n m) memory."""
        return self.other.dense().transposed()

    def softmin(self, potential: jax.Array, epsilon: jax.Array, axis: int):
        """Soft minimum along an axis, as in `Dense`."""
        return self.other.softmin(potential, epsilon, 1 - axis)

    def marginals(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """([n], [m]) row and column sums of the plan; one pass."""
        columns, rows = self.other.marginals(g, f, epsilon)
        return rows, columns

    def plan_times(
        self,
        f: jax.Array,
        g: jax.Array,
        epsilon: jax.Array,
        vector: jax.Array,
        axis: int,
    ) -> jax.Array:
        """Plan times vectors, as in `Dense`; one pass."""
        return self.other.plan_times(g, f, epsilon, vector, 1 - axis)

    def transport_cost(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """<C, P>, in cost times mass; one pass."""
        return self.other.transport_cost(g, f, epsilon)
