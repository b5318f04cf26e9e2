"""What the rest of the package asks of a cost, wherever it comes from."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxsns.geometry.kernel import Kernel


class Geometry(Protocol):
    """Costs [n, m] of pairs of atoms, in any unit.

    What users give (`Dense`, `PointCloud`, `Grid`) has all of it but passes; a solve
    runs on what `formed` returns.
    """

    @property
    def stored(self) -> bool:
        """Whether a solve runs on a matrix."""
        ...

    @property
    def has_kernel(self) -> bool:
        """Whether a solve runs on what `absorb` builds; else costs are streamed."""
        ...

    @property
    def streams_rows(self) -> bool:
        """Whether only its transpose can be solved."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        ...

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype in which the costs come out."""
        ...

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays behind it by name, for checks of their values."""
        ...

    def formed(self) -> Any:
        """Return the geometry on which a solve runs."""
        ...

    def dense(self) -> Any:
        """Return the costs as a `Dense` matrix: O(n m) memory."""
        ...

    def reduced(
        self, real_rows: jax.Array, real_columns: jax.Array
    ) -> tuple["Geometry", jax.Array, jax.Array] | None:
        """Return costs of the same plans, and what they lost, [n] and [m]."""
        ...


class Formed(Geometry, Protocol):
    """A geometry with passes: sums over the plan of given potentials."""

    def transposed(self) -> "Formed":
        """Return the costs with rows and columns exchanged."""
        ...

    def softmin(self, potential: jax.Array, epsilon: jax.Array, axis: int) -> jax.Array:
        """Soft minimum of cost minus potential along an axis."""
        ...

    def marginals(
        self, f: jax.Array, g: jax.Array, epsilon: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of the plan."""
        ...

    def plan_times(
        self,
        f: jax.Array,
        g: jax.Array,
        epsilon: jax.Array,
        vector: jax.Array,
        axis: int,
    ) -> jax.Array:
        """Plan times vectors, along an axis."""
        ...

    def transport_cost(
        self, f: jax.Array, g: jax.Array, epsilon: jax.Array
    ) -> jax.Array:
        """<C, P>, in cost times mass."""
        ...


class WithKernel(Formed, Protocol):
    """A geometry that builds kernels for steps without exponentials."""

    def absorb(self, f: jax.Array, epsilon: jax.Array) -> tuple[Kernel, jax.Array]:
        """Kernel of row potentials f [n], and the scale of each column, [m] in cost."""
        ...

    def spread(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
        """[] largest minus smallest cost of rows [n] and columns [m], bool."""
        ...
