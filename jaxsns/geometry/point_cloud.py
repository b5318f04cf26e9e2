"""A cost given by two clouds of points."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns import hints
from jaxsns.geometry import costs, learnable, memory, pallas_softmin
from jaxsns.geometry.dense import Dense
from jaxsns.geometry.sharding import Mesh
from jaxsns.geometry.streamed import Streamed
from jaxsns.geometry.transposed import TransposedCost
from jaxsns.numerics import matmul, vdot


@hints.geometry
@learnable.register(
    ("x", "y", "factor"), ("streamed", "block", "mesh", "axis", "pallas")
)
@dataclasses.dataclass(frozen=True)
class PointCloud:
    """Points x [n, d] and y [m, d] with a cost of two points.

    Attributes:
      x: [n, d] points.
      y: [m, d] points.
      cost: "sqeuclidean", "euclidean", "l1", "cosine", "dot" (-<x, y>),
        `jaxsns.costs.pnorm(p)`, or a function of two points [d], [d] -> [] written in
        JAX. Arrays that a function closes over, attributes of an object with
        `__call__`, and the leaves of a pytree (a registered dataclass, a
        `jax.tree_util.Partial`) are data: they have derivatives, may be traced, and
        new values compile nothing. Only a pytree takes them through a `jax.jit` of
        yours, to which a function is static, by identity. +inf forbids a pair.
      factor: scalar by which the costs are multiplied; 1 if None.
      streamed: True never stores the [n, m] costs or plan and recomputes them in
        blocks; False forms the matrix once for a solve; None: the matrix if four
        arrays of its size fit into 1 GiB and a quarter of the device's memory.
      block: columns that are formed at a time when streamed; None: by shape.
      mesh: devices among which the rows of the costs, the points x, are divided; such
        a geometry is always streamed. Its axes must be of type Auto.
      axis: name of the axis of `mesh` along which they are.
      pallas: True computes soft minima and marginals of streamed squared distances,
        in up to 16 dimensions, in kernels written in Pallas: experimental, for GPUs and
        TPUs, measured on neither. On a CPU they are interpreted, for tests.
    """

    x: jax.Array
    y: jax.Array
    cost: str | costs.CostFunction = "sqeuclidean"
    factor: jax.Array | None = None
    streamed: bool | None = None
    block: int | None = None
    mesh: jax.sharding.Mesh | None = None
    axis: str | None = None
    pallas: bool = False

    __repr__ = hints.one_line

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
        if self.streamed not in (None, True, False):
            raise TypeError(
                f"streamed must be True, False or None; got {self.streamed!r}"
            )
        if (self.mesh is None) != (self.axis is None):
            raise ValueError(
                "mesh and axis go together: give the mesh and the name of one of its "
                f"axes; got mesh={self.mesh!r}, axis={self.axis!r}"
            )
        if self.mesh is not None and self.axis not in self.mesh.axis_names:
            raise ValueError(
                f"axis must be one of {self.mesh.axis_names}; got {self.axis!r}"
            )
        kinds = () if self.mesh is None else self.mesh.axis_types
        if any(kind != jax.sharding.AxisType.Auto for kind in kinds):
            raise ValueError(
                "the axes of mesh must be of type jax.sharding.AxisType.Auto "
                "(jax.make_mesh(..., axis_types=(AxisType.Auto,))); "
                f"got {kinds}"
            )
        if self.mesh is not None and self.streamed is False:
            raise ValueError("a geometry divided by mesh is streamed; got False")
        if self.pallas not in (True, False):
            raise TypeError(f"pallas must be True or False; got {self.pallas!r}")
        if self.pallas:
            dimension = (np.shape(self.x) or (0,))[-1]
            pallas_softmin.check(self.cost, dimension, self.mesh is not None)
        block = self.block
        whole = isinstance(block, int) and not isinstance(block, bool)
        if block is not None and not (whole and block > 0):
            raise ValueError(f"block must be a positive integer or None; got {block!r}")

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

    @property
    def stored(self) -> bool:
        """Whether a solve runs on a matrix; known when compiled."""
        if self.mesh is not None or self.streamed:
            return False
        return self.streamed is False or memory.fits(*self.shape, self.dtype)

    @property
    def has_kernel(self) -> bool:
        """Whether a solve runs on kernels of a matrix; else costs are streamed."""
        return self.stored

    @property
    def streams_rows(self) -> bool:
        """Whether rows are divided among devices, so that its transpose is solved."""
        return self.mesh is not None

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

    def centres(self) -> tuple[jax.Array, jax.Array] | None:
        """Means of both clouds, [d] each; None if the cost does not split by them."""
        if not isinstance(self.cost, str) or self.cost not in ("sqeuclidean", "dot"):
            return None
        stop = jax.lax.stop_gradient
        return stop(jnp.mean(self.x, axis=0)), stop(jnp.mean(self.y, axis=0))

    def reduced(self, real_rows: jax.Array, real_columns: jax.Array):
        """Return a geometry of the same plans, and what its costs lost, [n] and [m].

        Squared distances and products of two clouds are those of the clouds around
        their own means plus a part of each point. A matrix of other costs loses
        offsets as `Dense` does; None where such costs are streamed.
        """
        centres = self.centres()
        if centres is None:
            formed = self.formed()
            if not isinstance(formed, Dense):
                return None
            return formed.reduced(real_rows, real_columns)
        x, y = self.x - centres[0][None], self.y - centres[1][None]
        reduced = dataclasses.replace(self, x=x, y=y)
        return reduced, self.offsets(x, 1), self.offsets(y, 0)

    def offsets(self, points: jax.Array, axis: int) -> jax.Array:
        """[k] what costs of points around their centre lack.

        axis=1: of points on the side of x; axis=0: of points on the side of y.
        """
        centres = self.centres()
        assert centres is not None
        mine, other = centres if axis == 1 else centres[::-1]
        factor = jnp.ones((), points.dtype) if self.factor is None else self.factor
        if self.cost == "dot":
            constant = vdot(mine, other) if axis == 1 else 0
            return -factor * (matmul(points, other) + constant)
        apart = mine - other
        constant = vdot(apart, apart) if axis == 1 else 0
        return factor * (2 * matmul(points, apart) + constant)

    def formed(self) -> Dense | Streamed | TransposedCost:
        """Return the geometry on which a solve runs: a matrix, or blocks of it."""
        if self.mesh is not None:
            assert self.axis is not None
            other = self.in_blocks().transposed()
            return TransposedCost(
                dataclasses.replace(other, mesh=Mesh(self.mesh, self.axis))
            )
        return self.dense() if self.stored else self.in_blocks()

    def settled(self) -> "PointCloud":
        """Return the same costs with their parameters as data; see `learnable`."""
        cost = learnable.settled(self.cost, self.x.shape[-1], self.dtype)
        return dataclasses.replace(self, cost=cost)

    def in_blocks(self) -> Streamed:
        """Return the same costs, never stored."""
        cost = self.settled().cost
        return Streamed(
            self.x, self.y, cost, self.factor, self.block, pallas=self.pallas
        )

    def dense(self) -> Dense:
        """Form the cost matrix: O(n m d) time, O(n m) memory."""
        return self.in_blocks().dense()
