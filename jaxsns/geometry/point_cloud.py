"""A cost given by two clouds of points."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns.geometry import costs
from jaxsns.geometry.dense import Dense


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "y", "factor"),
    meta_fields=("cost",),
)
@dataclasses.dataclass(frozen=True)
class PointCloud:
    """Points x [n, d] and y [m, d] with a cost of two points.

    Attributes:
      x: [n, d] points.
      y: [m, d] points.
      cost: "sqeuclidean", "euclidean", "l1", "cosine", `jaxsns.costs.pnorm(p)`,
        or a function of two points [d], [d] -> [] written in JAX. A function is
        static: use the same object again, not a fresh lambda, or it recompiles.
      factor: scalar by which the costs are multiplied; 1 if None.

    The [n, m] matrix is formed once for a solve.
    """

    x: jax.Array
    y: jax.Array
    cost: str | costs.CostFunction = "sqeuclidean"
    factor: jax.Array | None = None

    def __post_init__(self):
        """Refuse an unknown cost; arrays are checked by `make_problem`."""
        if isinstance(self.cost, str) and self.cost not in costs.NAMED:
            names = ", ".join(sorted(costs.NAMED))
            raise ValueError(
                f"cost must be one of {names}, or a function of two points; "
                f"got {self.cost!r}"
            )
        if not isinstance(self.cost, str) and not callable(self.cost):
            raise TypeError(
                "cost must be a name or a function of two points; "
                f"got {type(self.cost).__name__}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.x.shape[-2], self.y.shape[-2]

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype in which the costs come out."""
        return np.result_type(self.x.dtype, self.y.dtype)

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays behind it by name, for checks of their values."""
        return {"x": self.x, "y": self.y}

    def astype(self, dtype: jnp.dtype) -> "PointCloud":
        """Return the same points in another dtype."""
        x, y = jnp.asarray(self.x, dtype), jnp.asarray(self.y, dtype)
        factor = self.factor
        if factor is not None:
            factor = jnp.asarray(factor, dtype)
        return dataclasses.replace(self, x=x, y=y, factor=factor)

    def scaled(self, factor: jax.Array) -> "PointCloud":
        """Return the geometry whose costs are multiplied by a number."""
        if self.factor is not None:
            factor = factor * self.factor
        return dataclasses.replace(self, factor=factor)

    def formed(self) -> Dense:
        """Return the geometry on which a solve runs: the cost matrix."""
        return self.dense()

    def dense(self) -> Dense:
        """Form the cost matrix: O(n m d) time, O(n m) memory."""
        matrix = costs.matrix(self.cost, self.x, self.y)
        return Dense(matrix if self.factor is None else matrix * self.factor)
