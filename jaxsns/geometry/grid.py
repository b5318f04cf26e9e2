"""A cost that is a sum over the axes of regular grids: images, volumes."""

import dataclasses
import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns import hints
from jaxsns.geometry import axis_kernel, costs, grid_statistics, separable_kernel
from jaxsns.geometry.dense import Dense
from jaxsns.geometry.separable_kernel import SeparableKernel
from jaxsns.numerics import finite_minus_inf

Arrays = tuple[jax.Array, ...]


@hints.geometry
@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "y", "matrices", "factor"),
    meta_fields=("cost", "tiles"),
)
@dataclasses.dataclass(frozen=True)
class Grid:
    """All points of a grid with 1 to 3 axes; costs C_ij = sum_k C_k[i_k, j_k].

    Masses and potentials are flat, n = n_1 n_2 .., in C order; `solve` also takes
    masses in the grid's shape, and `on_grid` gives potentials that shape.

    Attributes:
      x: coordinates of the axes, ([n_1], [n_2], ..); any order and spacing.
      y: likewise of the grid of the columns, ([m_1], ..); x if None.
      cost: "sqeuclidean", "l1", or a number p >= 1 for sum_k |x_k - y_k|^p.
      matrices: in place of x, y and cost: ([n_1, m_1], ..) finite costs along the axes.
      factor: scalar by which the costs are multiplied; 1 if None.
      tiles: number of tiles into which an axis is cut. More of them reach a
        smaller epsilon before exponentials are needed. None: 4 in float64, 9 in
        float32; for costs with a kink ("l1", p < 2) 8 and 16.

    Nothing of size [n, m] is formed by a solve. A product with the plan takes O(n sum_k
    n_k) multiplications, a pass O(n) exponentials times a number of tiles; where costs
    along an axis over epsilon are too large for the dtype, O(n n_k) exponentials each.
    Squared distances are not, down to an epsilon of 1e-4 of the largest cost.
    Not for it: method "sns", the linear solvers "cholesky" and "sparse", scales by the
    median, forbidden pairs.
    """

    x: Arrays | None = None
    y: Arrays | None = None
    cost: str | float = "sqeuclidean"
    matrices: Arrays | None = None
    factor: jax.Array | None = None
    tiles: int | None = None

    __repr__ = hints.one_line

    stored: ClassVar[bool] = False
    has_kernel: ClassVar[bool] = True
    streams_rows: ClassVar[bool] = False

    def __post_init__(self):
        """Refuse an unknown cost; arrays are checked by `make_problem`."""
        known = ("sqeuclidean", "l1")
        if isinstance(self.cost, str):
            if self.cost not in known:
                raise ValueError(
                    "cost of a grid must be 'sqeuclidean', 'l1', a number p >= 1, or "
                    f"given by matrices of the axes; got {self.cost!r}"
                )
        elif isinstance(self.cost, bool) or not isinstance(self.cost, int | float):
            raise TypeError(
                "cost of a grid must be a name or a number p; got "
                f"{type(self.cost).__name__} (matrices of the axes: matrices=(..))"
            )
        elif not self.cost >= 1:
            raise ValueError(f"p of a grid's cost must be at least 1; got {self.cost}")
        if self.tiles is not None and (
            not isinstance(self.tiles, int) or self.tiles < 1
        ):
            raise ValueError(
                f"tiles must be a positive integer or None; got {self.tiles}"
            )

    @property
    def sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """((n_1, ..), (m_1, ..))."""
        if self.matrices is not None:
            shapes = [c.shape[-2:] for c in self.matrices]
            return tuple(s[0] for s in shapes), tuple(s[1] for s in shapes)
        assert self.x is not None
        y = self.x if self.y is None else self.y
        return tuple(v.shape[-1] for v in self.x), tuple(v.shape[-1] for v in y)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        n, m = self.sizes
        return math.prod(n), math.prod(m)

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype in which the costs come out."""
        return np.result_type(*[v.dtype for v in self.arrays.values()])

    @property
    def arrays(self) -> dict[str, jax.Array]:
        """The arrays behind it by name, for checks of their values."""
        groups = {"x": self.x, "y": self.y, "matrices": self.matrices}
        return {
            f"{name}[{k}]": v
            for name, group in groups.items()
            for k, v in enumerate(group or ())
        }

    def astype(self, dtype: jnp.dtype) -> "Grid":
        """Return the same grid in another dtype."""
        return jax.tree.map(lambda v: jnp.asarray(v, dtype), self)

    def scaled(self, factor: jax.Array) -> "Grid":
        """Return the costs times a number."""
        factor = factor if self.factor is None else factor * self.factor
        return dataclasses.replace(self, factor=factor)

    def transposed(self) -> "Grid":
        """Return the costs with rows and columns exchanged."""
        matrices = tuple(c.T for c in self.axes())
        return Grid(matrices=matrices, tiles=self._tiles)

    def reduced(self, real_rows: jax.Array, real_columns: jax.Array):
        """Return a grid of the same plans, and what its costs lost, [n] and [m].

        Costs along each axis lose their least entries, row by row and column by column.
        """
        parts = [_reduced_axis(c) for c in self.axes()]
        matrices = tuple(matrix for matrix, _, _ in parts)
        rows = _flat_sum([rows for _, rows, _ in parts])
        columns = _flat_sum([columns for _, _, columns in parts])
        return Grid(matrices=matrices, tiles=self._tiles), rows, columns

    def axes(self) -> Arrays:
        """([n_1, m_1], ..) the costs along the axes."""
        if self.matrices is not None:
            out = self.matrices
        else:
            assert self.x is not None
            y = self.x if self.y is None else self.y
            out = tuple(map(self._along, self.x, y))
        return out if self.factor is None else tuple(c * self.factor for c in out)

    def _along(self, x: jax.Array, y: jax.Array) -> jax.Array:
        p = {"l1": 1.0, "sqeuclidean": 2.0}.get(str(self.cost), self.cost)
        difference = x[:, None] - y[None, :]
        if p == 2:
            return difference**2
        assert not isinstance(p, str)
        return (
            jnp.abs(difference) if p == 1 else costs.safe_power(jnp.abs(difference), p)
        )

    def formed(self) -> "Grid":
        """Return the geometry on which a solve runs: costs of the axes formed."""
        return Grid(matrices=self.axes(), tiles=self._tiles)

    @property
    def _tiles(self) -> int:
        p = self.cost
        kinked = p == "l1" if isinstance(p, str) else p < 2
        return self.tiles or axis_kernel.number_of_tiles(self.dtype, kinked)

    def dense(self) -> Dense:
        """Form the cost matrix: O(n m) time and memory, for small grids."""
        n, m = self.sizes
        axes = self.axes()
        total = jnp.zeros((1,) * (2 * len(n)), axes[0].dtype)
        for k, c in enumerate(axes):
            total = total + self._broadcast(c, k)
        return Dense(jnp.broadcast_to(total, n + m).reshape(self.shape))

    def _broadcast(self, c: jax.Array, k: int) -> jax.Array:
        shape = [1] * (2 * len(self.sizes[0]))
        shape[k], shape[k + len(self.sizes[0])] = c.shape
        return c.reshape(shape)

    def rows(self, indices: jax.Array) -> jax.Array:
        """[s, m] costs of some rows."""
        n, m = self.sizes
        where = jnp.unravel_index(indices, n)
        total = jnp.zeros((indices.shape[0],) + (1,) * len(m), self.dtype)
        for k, (c, i) in enumerate(zip(self.axes(), where, strict=True)):
            shape = [indices.shape[0]] + [1] * len(m)
            shape[k + 1] = m[k]
            total = total + c[i].reshape(shape)
        return total.reshape(indices.shape[0], -1)

    def on_grid(self, vector: jax.Array, axis: int = 0) -> jax.Array:
        """Give a flat array [n, ..] the shape [n_1, n_2, .., ..] of its grid.

        axis=0: the grid of the rows (f, a); axis=1: that of the columns (g, b).
        """
        return vector.reshape(self.sizes[axis] + vector.shape[1:])

    def _cut(self, epsilon: jax.Array, axis: int):
        """Of sums over rows (axis=0) or columns, the last axis of the grid first."""
        oriented = [c.T if axis == 0 else c for c in self.axes()]
        return tuple(
            axis_kernel.tile(c / epsilon, self._tiles) for c in reversed(oriented)
        )

    def spread(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
        """[] largest minus smallest cost in the boxes around all atoms that count."""
        return grid_statistics.spread(self, rows, columns)

    def softmin(self, potential: jax.Array, epsilon: jax.Array, axis: int):
        """Soft minimum of cost minus potential along an axis; see `Dense.softmin`."""
        log = _bounded(potential) / epsilon
        return -epsilon * separable_kernel.log_sums(self._cut(epsilon, axis), log)

    def marginals(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """([n], [m]) row and column sums of exp((f_i + g_j - C_ij) / epsilon)."""
        rows = jnp.exp((f - self.softmin(g, epsilon, axis=1)) / epsilon)
        return rows, jnp.exp((g - self.softmin(f, epsilon, axis=0)) / epsilon)

    def absorb(
        self, f: jax.Array, epsilon: jax.Array
    ) -> tuple[SeparableKernel, jax.Array]:
        """Kernel of given row potentials, each column scaled to a sum of 1.

        Returns K = exp((f_i - C_ij - top_j) / epsilon) as stages, and top [m].
        """
        tiles = self._cut(epsilon, axis=0)
        kernel, log = separable_kernel.absorb(tiles, _bounded(f) / epsilon)
        return kernel, epsilon * log

    def plan_kernel(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """Kernel K and scale [m] of the plan K diag(scale)."""
        kernel, top = self.absorb(f, epsilon)
        return kernel, jnp.exp((g + top) / epsilon)

    def plan(self, f: jax.Array, g: jax.Array, epsilon: jax.Array) -> jax.Array:
        """[n, m] the plan, formed: O(n m), for small grids."""
        return self.dense().plan(f, g, epsilon)

    def plan_times(
        self,
        f: jax.Array,
        g: jax.Array,
        epsilon: jax.Array,
        vector: jax.Array,
        axis: int,
    ) -> jax.Array:
        """Plan times vectors: axis=1 sums over columns ([m] or [m, k] -> [n, ...])."""
        kernel, scale = self.plan_kernel(f, g, epsilon)

        def one(v: jax.Array) -> jax.Array:
            if axis == 1:
                return kernel.times(scale * v)
            return scale * kernel.transpose_times(v)

        return one(vector) if vector.ndim == 1 else jax.vmap(one, 1, 1)(vector)

    def transport_cost(self, f: jax.Array, g: jax.Array, epsilon: jax.Array):
        """<C, P>, in cost times mass; a product of stages for each axis."""
        kernel, scale = self.plan_kernel(f, g, epsilon)
        return jnp.sum(scale * kernel.weighted_sums(self.axes()))


def _reduced_axis(cost: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Costs of an axis less the least of each row and then column, and these."""
    stop = jax.lax.stop_gradient
    rows = stop(jnp.min(cost, axis=1))
    rest = cost - rows[:, None]
    columns = stop(jnp.min(rest, axis=0))
    return rest - columns[None, :], rows, columns


def _flat_sum(parts: list[jax.Array]) -> jax.Array:
    """[n] sums of numbers along the axes, [n_k] each, at all points of the grid."""
    total = jnp.zeros((), parts[0].dtype)
    for k, part in enumerate(parts):
        shape = [1] * len(parts)
        shape[k] = -1
        total = total + part.reshape(shape)
    return total.reshape(-1)


def _bounded(potential: jax.Array) -> jax.Array:
    """A potential with a finite stand-in for -inf."""
    low = finite_minus_inf(potential.dtype)
    return jnp.where(potential < low, low, potential)
