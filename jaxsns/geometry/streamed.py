"""A cost of two point clouds that is never stored: blocks of columns, one at a time.

All that solvers and solutions ask for is a sum over columns or a number for each
column of the reduced costs z_ji = (f_i - C_ij) / epsilon. A block of z is formed from
the points, used and forgotten, in derivatives too (`jax.checkpoint`): memory is that
of the points, the vectors and one block.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns.geometry import blocks, costs, learnable, pallas_softmin, sharding
from jaxsns.geometry.dense import Dense, Largest
from jaxsns.geometry.sharding import Mesh
from jaxsns.geometry.streamed_kernel import FORBIDDEN, StreamedKernel, log_entries
from jaxsns.geometry.top_k import top_k
from jaxsns.numerics import (
    finite_minus_inf,
    is_forbidden,
    matmul,
    permitted_costs,
    root,
    unit_of,
)

# [D26]
BLOCK = 1 << 21  # entries of a block: a few of them fit into a cache or are 8 MiB each


@learnable.register(("x", "y", "factor"), ("block", "mesh", "pallas"))
@dataclasses.dataclass(frozen=True)
class Streamed:
    """Costs of x [n, d] and y [m, d], recomputed whenever they are needed.

    Attributes:
      x: [n, d] points.
      y: [m, d] points.
      cost: as in `PointCloud`, settled (`learnable.settled`).
      factor: scalar by which costs are multiplied; 1 if None.
      block: columns that are formed at a time, at most; None: about 2 million entries.
      mesh: devices among which the columns are divided, or None.
      pallas: whether soft minima and marginals come from a kernel written in Pallas.
    """

    x: jax.Array
    y: jax.Array
    cost: str | costs.CostFunction = "sqeuclidean"
    factor: jax.Array | None = None
    block: int | None = None
    mesh: Mesh | None = None
    pallas: bool = False

    stored: ClassVar[bool] = False
    has_kernel: ClassVar[bool] = False
    streams_rows: ClassVar[bool] = False

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
    def may_forbid(self) -> bool:
        """Whether a cost may be +inf, which forbids the pair; known when compiled."""
        return not isinstance(self.cost, str | costs.PNorm)

    def transposed(self) -> "Streamed":
        """Return the costs with rows and columns exchanged, on one device."""
        cost = learnable.exchanged(self.cost)
        return dataclasses.replace(self, x=self.y, y=self.x, cost=cost, mesh=None)

    def reduced(self, real_rows: jax.Array, real_columns: jax.Array) -> None:
        """Return no reduced costs: `PointCloud` reduces points before."""

    def formed(self) -> "Streamed":
        """Return the geometry on which a solve runs: this one."""
        return self

    def _times_factor(self, cost: jax.Array) -> jax.Array:
        """Costs times the factor; +inf stays what it is, in derivatives too."""
        if self.factor is None:
            return cost
        if not self.may_forbid:
            return cost * self.factor
        banned = cost == jnp.inf
        return jnp.where(banned, jnp.inf, jnp.where(banned, 0, cost) * self.factor)

    def _held(self, cost: jax.Array) -> jax.Array:
        """Costs as they are computed with: times the factor, `permitted_costs`."""
        cost = self._times_factor(cost)
        return permitted_costs(cost) if self.may_forbid else cost

    def dense(self) -> Dense:
        """Form the cost matrix: O(n m) memory."""
        cost = self._times_factor(costs.matrix(self.cost, self.x, self.y))
        return Dense(cost, pallas=self.pallas)

    def cost_block(self, y: jax.Array) -> jax.Array:
        """[k, n] costs of some columns, given their points [k, d]."""
        return self._held(costs.matrix(self.cost, self.x, y).T)

    def pair_costs(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
        """Costs of pairs of indices, both of one shape [r, k] or [r, 1]."""
        return self._held(costs.pairs(self.cost, self.x[rows], self.y[columns]))

    def reduced_block(self, f: jax.Array, epsilon: jax.Array, y: jax.Array):
        """[k, n] (f_i - C_ij) / epsilon for the columns with points y [k, d].

        It is `finite_minus_inf`, whatever epsilon is, where a pair is forbidden.
        """
        if isinstance(self.cost, str) and self.cost in costs.REDUCED:
            weight = 1 / epsilon if self.factor is None else self.factor / epsilon
            return costs.REDUCED[self.cost](f / epsilon, self.x, y, weight)
        cost = self.cost_block(y)
        z = (f[None, :] - cost) / epsilon
        if not self.may_forbid:
            return z
        return jnp.where(is_forbidden(cost), finite_minus_inf(z.dtype), z)

    def _alone(self) -> "Streamed":
        """Itself without its columns, for a function of some of them."""
        return dataclasses.replace(self, y=self.y[:1], mesh=None)

    def block_size(self) -> int:
        """Columns at a time, at most."""
        n, m = self.shape
        return min(self.block or max(BLOCK // n, 1), m)

    def columns(
        self,
        function: Callable[[jax.Array, Any, Any], tuple[Any, Any]],
        f: jax.Array,
        epsilon: jax.Array,
        inputs: Any = (),
        shared: Any = (),
        multiple: int = 1,
    ) -> tuple[Any, Any]:
        """Run over blocks of columns.

        Args:
          function: of z [k, n], the inputs of k columns and `shared`, to (sums,
            outputs): what is added up over the blocks, and arrays with k (or
            k / multiple) entries. It must not close over traced arrays.
          f: [n] row potentials.
          epsilon: [].
          inputs: pytree of arrays [m, ...].
          shared: pytree of arrays that all columns have.
          multiple: of which k is one, and m on each device.

        Returns:
          The sums and the outputs [m, ...], the latter divided among the devices as
          the columns are. One pass; sums over devices are added up by one collective.
        """
        size = self.block_size()

        def run(operands, mine, real=None, axis=None):
            f, epsilon, local, shared = operands

            def block(given):
                (y, values), real = given
                z = local.reduced_block(f, epsilon, y)
                if real is not None:
                    z = jnp.where(real[:, None], z, -jnp.inf)
                return function(z, values, shared)

            return blocks.scan(block, (mine, real), size, axis, multiple)

        operands, mine = (f, epsilon, self._alone(), shared), (self.y, inputs)
        if self.mesh is None:
            return run(operands, mine)
        return sharding.over_columns(self.mesh, run)(operands, mine)

    def softmin(self, potential: jax.Array, epsilon: jax.Array, axis: int):
        """Soft minimum of cost minus potential along an axis, as in `Dense`."""
        if axis == 1:
            if self.mesh is None:
                return self.transposed().softmin(potential, epsilon, 0)
            where = self.mesh

            def mine(operands, own):
                local, epsilon = operands
                local = dataclasses.replace(local, y=own[0]).transposed()
                soft = local.softmin(own[1], epsilon, 0)
                return -epsilon * sharding.log_sum(where, -soft / epsilon)

            alone = self._alone()
            run = sharding.everywhere(where, mine)
            return run((alone, epsilon), (self.y, potential))

        if self.pallas:
            return pallas_softmin.softmin(self, potential, epsilon)

        def block(z, *_):
            return (), jax.nn.logsumexp(z, axis=1)

        return -epsilon * self.columns(block, potential, epsilon)[1]

    def marginals(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """([n], [m]) row and column sums of the plan; one pass."""
        if self.pallas:
            rows = (f - self.softmin(g, epsilon, 1)) / epsilon
            return jnp.exp(rows), jnp.exp((g - self.softmin(f, epsilon, 0)) / epsilon)

        def block(z, log_v, _):
            plan = jnp.exp(log_entries(self.may_forbid, z, log_v))
            return jnp.sum(plan, axis=0), jnp.sum(plan, axis=1)

        return self.columns(block, f, epsilon, g / epsilon)

    def plan_times(
        self,
        f: jax.Array,
        g: jax.Array,
        epsilon: jax.Array,
        vector: jax.Array,
        axis: int,
    ) -> jax.Array:
        """Plan times vectors, as in `Dense`; one pass."""
        if axis == 1:

            def weigh(z, given, _):
                plan = jnp.exp(log_entries(self.may_forbid, z, given[0]))
                return matmul(plan.T, given[1]), ()

            return self.columns(weigh, f, epsilon, (g / epsilon, vector))[0]

        def block(z, log_v, vector):
            return (), matmul(jnp.exp(log_entries(self.may_forbid, z, log_v)), vector)

        return self.columns(block, f, epsilon, g / epsilon, vector)[1]

    def transport_cost(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """<C, P>, in cost times mass; one pass."""

        def block(z, given, local):
            y, log_v = given
            plan = jnp.exp(log_entries(self.may_forbid, z, log_v))
            return jnp.sum(local.cost_block(y) * plan), ()

        inputs = self.y, g / epsilon
        return self.columns(block, f, epsilon, inputs, self._alone())[0]

    def largest(
        self, f: jax.Array, g: jax.Array, epsilon: jax.Array, k: int, axis: int
    ) -> Largest:
        """Return the k largest plan entries along an axis, chosen in float32."""
        if axis == 1:
            if self.mesh is None:
                return self.transposed().largest(g, f, epsilon, k, 0)
            where = self.mesh

            def mine(operands, own):
                local, f, epsilon = operands
                local = dataclasses.replace(local, y=own[0]).transposed()
                width = own[0].shape[0]
                log, index = local.largest(own[1], f, epsilon, min(k, width), 0)
                fill = ((0, 0), (0, k - min(k, width)))
                log = jnp.pad(log, fill, constant_values=-jnp.inf)
                first = jax.lax.axis_index(where.axis) * width
                index = jnp.pad(index + first.astype(index.dtype), fill)
                return Largest(*sharding.merge_largest(where, log, index))

            alone = self._alone()
            run = sharding.everywhere(where, mine)
            return run((alone, f, epsilon), (self.y, g))

        def block(z, log_v, _):
            indices = top_k(z.astype(jnp.float32), k)
            log = log_entries(
                self.may_forbid, jnp.take_along_axis(z, indices, axis=1), log_v
            )
            return (), Largest(log, indices)

        return self.columns(block, f, epsilon, g / epsilon)[1]

    def moments(self, rows: jax.Array, columns: jax.Array):
        """([], [], []) largest, mean and standard deviation of the costs.

        rows [n], columns [m]: bool, the atoms that count; forbidden pairs do not. Two
        passes without exponentials.
        """
        zero, one = jnp.zeros(rows.shape, self.dtype), jnp.ones((), self.dtype)
        low = FORBIDDEN * finite_minus_inf(self.dtype) if self.may_forbid else -jnp.inf

        def first(z, real, rows):
            both = real[:, None] & rows[None, :] & ~(z <= low)
            # -z are the costs. By place: the derivative of a maximum compares with
            # what was rounded another way, and is 0 / 0 where nothing is equal.
            real = jnp.where(both, -z, -jnp.inf)
            place = jnp.argmax(jax.lax.stop_gradient(real), axis=1, keepdims=True)
            top = jnp.take_along_axis(real, place, axis=1)[:, 0]
            sums = jnp.sum(jnp.where(both, -z, 0))
            return (sums, jnp.sum(both, dtype=z.dtype) if self.may_forbid else ()), top

        (total, count), top = self.columns(first, zero, one, columns, rows)
        if not self.may_forbid:
            some = (jnp.sum(side, dtype=zero.dtype) for side in (rows, columns))
            count = math.prod(some, start=one)
        largest = top[jnp.argmax(jax.lax.stop_gradient(top))]
        # Where no pair is permitted every scale is zero, as of stored costs.
        largest = jnp.where(count > 0, largest, 0)
        count = jnp.maximum(count, 1)
        mean = total / count
        unit = unit_of(jnp.stack([largest, mean]))

        def second(z, real, shared):
            rows, mean, unit = shared
            both = real[:, None] & rows[None, :] & ~(z <= low)
            # Not where(both, (..) ** 2, 0): the derivative of an infinity is NaN.
            return jnp.sum(jnp.where(both, (-z - mean) / unit, 0) ** 2), ()

        shared = rows, mean, unit
        squares = self.columns(second, zero, one, columns, shared)[0]
        return largest, mean, unit * root(squares / count)

    def absorb(
        self, f: jax.Array, epsilon: jax.Array
    ) -> tuple[StreamedKernel, jax.Array]:
        """Kernel of given row potentials, each column scaled to a sum of 1.

        Returns K = exp((f_i - C_ij - top_j) / epsilon) behind its products, a pass
        each, and top [m]. One pass.
        """
        soft = self.softmin(f, epsilon, axis=0)
        soft = jnp.where(jnp.isfinite(soft), soft, finite_minus_inf(soft.dtype))
        return self.kernel(f, soft, epsilon), -soft

    def plan_kernel(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """Kernel K and scale [m] of the plan K diag(scale)."""
        return self.kernel(f, g, epsilon), jnp.ones_like(g)

    def kernel(self, f: jax.Array, g: jax.Array, epsilon: jax.Array) -> StreamedKernel:
        """Return the plan of finite potentials, behind its products."""
        return StreamedKernel(self, f, g / epsilon, epsilon)
