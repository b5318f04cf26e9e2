"""A cost given as a matrix, and the operations on it that solvers use."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import hints
from jaxsns.geometry import column_maxima
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.numerics import (
    dual_slack,
    finite_minus_inf,
    is_forbidden,
    matmul,
    permitted_costs,
    scaled_log_sum,
    smallest_kept,
)

SPREAD_ROWS = 64  # of which a spread is measured, in rows [D04]


class Largest(NamedTuple):
    """The largest plan entries of each row (or column)."""

    log: jax.Array  # [n, k] logarithms of the entries, largest first
    indices: jax.Array  # [n, k] int32, where in its row each one stands


@hints.geometry
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """Cost matrix [n, m], in any unit; epsilon and the potentials share that unit.

    Attributes:
      cost: [n, m] costs; +inf where a pair is forbidden.
      rows: [n] offsets that are taken off the costs where they are read, or None.
      columns: [m] likewise.
      pallas: True makes the first sweeps of tiny problems under `vmap`, of up to 64
        entries, in a kernel written in Pallas: experimental, for GPUs and TPUs,
        measured on neither. On a CPU it is interpreted, for tests.
    """

    cost: jax.Array
    rows: jax.Array | None = None
    columns: jax.Array | None = None
    pallas: bool = dataclasses.field(default=False, metadata={"static": True})

    __repr__ = hints.one_line

    stored: ClassVar[bool] = True  # as a matrix
    has_kernel: ClassVar[bool] = True  # see `absorb`
    streams_rows: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.cost.shape[-2], self.cost.shape[-1]

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of the cost."""
        return self.cost.dtype

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays behind it by name, for checks of their values."""
        return {"cost": self.cost}

    @property
    def entries(self) -> jax.Array:
        """[n, m] costs as they are computed with: see `permitted_costs`.

        Made where they are read, as part of a pass: a copy would cost more than one.
        """
        return self._less_offsets(permitted_costs(self.cost), self.rows)

    def _less_offsets(self, cost: jax.Array, rows: jax.Array | None) -> jax.Array:
        """Costs [k, m] of some rows without the offsets; forbidden pairs stay so."""
        if rows is None or self.columns is None:
            return cost
        reduced = (cost - rows[:, None]) - self.columns[None, :]
        return jnp.where(is_forbidden(cost), cost, reduced)

    def _read_with(self, potential: jax.Array) -> jax.Array:
        """`entries` for a pass at a potential.

        XLA takes what does not change out of loops: that would be the copy again.
        """
        return self._less_offsets(permitted_costs(self._held(potential)), self.rows)

    def _row_offsets(self) -> tuple[jax.Array, ...]:
        return () if self.rows is None else (self.rows,)

    def _held(self, potential: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier((self.cost, potential))[0]

    def astype(self, dtype: jnp.dtype) -> "Dense":
        """Return the same costs in another dtype."""
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), self)

    def scaled(self, factor: jax.Array) -> "Dense":
        """Return the costs times a number."""
        return jax.tree.map(lambda x: x * factor, self)

    def transposed(self) -> "Dense":
        """Return the costs with rows and columns exchanged."""
        return Dense(self.cost.T, self.columns, self.rows, self.pallas)

    def reduced(
        self, real_rows: jax.Array, real_columns: jax.Array
    ) -> tuple["Dense", jax.Array, jax.Array] | None:
        """Return the costs less their offsets, and these, [n] and [m].

        Offsets are the least cost of each row, and then of each column, to atoms that
        count [n] and [m] bool: what is left is >= 0 between these, with a zero in every
        row. Two passes without exponentials. None in float64, which has digits to spare
        for offsets of 1e5 epsilon.
        """
        if jnp.finfo(self.dtype).bits >= 64:
            return None
        cost = jax.lax.stop_gradient(permitted_costs(self.cost))
        some = lambda x: jnp.where(is_forbidden(x), 0, x)
        rows = some(jnp.min(jnp.where(real_columns[None, :], cost, jnp.inf), axis=1))
        less = lambda cost, rows, real: jnp.where(
            is_forbidden(cost) | ~real[:, None], -jnp.inf, rows[:, None] - cost
        )
        columns = some(-column_maxima.maxima(less, cost, rows, real_rows))
        return dataclasses.replace(self, rows=rows, columns=columns), rows, columns

    def formed(self) -> "Dense":
        """Return the geometry on which a solve runs: this one."""
        return self

    def dense(self) -> "Dense":
        """Return the costs as a matrix: this one."""
        return self

    def spread(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
        """[] largest minus smallest permitted cost of rows [n] and columns [m] (bool).

        Of at most 64 rows, evenly spaced among those that count: it is for the first
        epsilon of a path, of which only the order of magnitude matters.
        """
        n = rows.shape[0]
        count = min(n, SPREAD_ROWS)
        # Rows that count come first, in their order.
        order = jnp.argsort(~rows, stable=True)
        number = jnp.maximum(jnp.sum(rows), 1)
        chosen = order[(jnp.arange(count) * number) // count]
        cost = self._less_offsets(
            permitted_costs(self.cost[chosen]),
            None if self.rows is None else self.rows[chosen],
        )
        counts = rows[chosen][:, None] & columns[None, :] & ~is_forbidden(cost)
        high = jnp.max(jnp.where(counts, cost, -jnp.inf))
        return high - jnp.min(jnp.where(counts, cost, jnp.inf))

    def softmin(self, potential: jax.Array, epsilon: jax.Array, axis: int):
        """Soft minimum of cost minus potential along an axis.

        axis=1: out_i = -epsilon log sum_j exp((g_j - C_ij) / epsilon) for g [m];
        axis=0: the same over i for f [n]. One exponential pass.
        """
        reduced = jnp.expand_dims(potential, 1 - axis) - self._read_with(potential)
        return -scaled_log_sum(reduced, epsilon, axis)

    def log_plan(self, f: jax.Array, g: jax.Array, epsilon: jax.Array) -> jax.Array:
        """[n, m] (f_i + g_j - C_ij) / epsilon."""
        cost = self._read_with(f)
        log = dual_slack(f[:, None], g[None, :], cost) / epsilon
        # Potentials of a row without permitted pairs cancel such a cost by chance.
        return jnp.where(is_forbidden(cost), finite_minus_inf(log.dtype), log)

    def plan(self, f: jax.Array, g: jax.Array, epsilon: jax.Array) -> jax.Array:
        """[n, m] exp((f_i + g_j - C_ij) / epsilon), in mass."""
        return jnp.exp(self.log_plan(f, g, epsilon))

    def plan_kernel(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """Kernel K and scale [m] of the plan K diag(scale)."""
        return DenseKernel(self.plan(f, g, epsilon)), jnp.ones_like(g)

    def marginals(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """([n], [m]) row and column sums of the plan; one pass."""
        plan = self.plan(f, g, epsilon)
        return jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)

    def plan_times(
        self,
        f: jax.Array,
        g: jax.Array,
        epsilon: jax.Array,
        vector: jax.Array,
        axis: int,
    ) -> jax.Array:
        """Plan times vectors: axis=1 sums over columns ([m] or [m, k] -> [n, ...])."""
        plan = self.plan(f, g, epsilon)
        plan = plan if axis == 1 else plan.T
        return matmul(plan, vector)

    def transport_cost(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """<C, P>, in cost times mass; one pass."""
        return jnp.sum(self.entries * self.plan(f, g, epsilon))

    def largest(
        self, f: jax.Array, g: jax.Array, epsilon: jax.Array, k: int, axis: int
    ) -> Largest:
        """Return the k largest plan entries along an axis, chosen in float32.

        `top_k` in float64 takes 10 to 20 times as long on a CPU; a tie broken
        another way by float32 changes a sparsity pattern, not an answer.
        """
        log = self.log_plan(f, g, epsilon)
        log = log if axis == 1 else log.T
        indices = jax.lax.top_k(log.astype(jnp.float32), k)[1]
        return Largest(jnp.take_along_axis(log, indices, axis=1), indices)

    def absorb(self, f: jax.Array, epsilon: jax.Array) -> tuple[DenseKernel, jax.Array]:
        """Kernel of given row potentials, each column scaled to a maximum of 1.

        Returns K = exp((f_i - C_ij - top_j) / epsilon) and top [m], in cost, so
        that column sums lie in [1, n]: neither overflow nor an empty column can
        occur, whatever f and epsilon are. One maximum and one exponential pass.
        """

        def reduced(cost: jax.Array, f: jax.Array, *offsets: jax.Array) -> jax.Array:
            cost = permitted_costs(cost)
            return f[:, None] - self._less_offsets(cost, *(offsets or (None,)))

        top = column_maxima.maxima(reduced, self._held(f), f, *self._row_offsets())
        shifted = f[:, None] - self._read_with(f) - top[None, :]
        matrix = jnp.exp(shifted / epsilon)
        small = smallest_kept(matrix.dtype)
        return DenseKernel(jnp.where(matrix < small, 0, matrix)), top
