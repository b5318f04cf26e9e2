"""A plan on regular grids behind the products that solvers need, axis by axis."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import axis_kernel
from jaxsns.geometry.axis_kernel import AxisKernel, TiledCost


class SeparableKernel(NamedTuple):
    """K [n, m] with entries exp((f_i - C_ij - top_j) / epsilon), columns of sum 1.

    K^T is a product of stages, the last axis first. No entry of K is ever formed, so
    there is no Gram matrix to factorise.
    """

    stages: tuple[AxisKernel, ...]

    factorisable = False

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [m]."""
        return self._down(u, {})

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [n]."""
        return self._up(v, 1)

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """K diag(weights) K^T u, [n]."""
        return self.times(weights * self.transpose_times(u))

    def sums(self, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of K diag(v)."""
        ones = jnp.ones((self._rows,), v.dtype)
        return self.times(v), v * self.transpose_times(ones)

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(K o K) v, [n]. Each entry of K is one product of entries of the stages."""
        return self._up(v, 2)

    def weighted_sums(self, costs: tuple[jax.Array, ...]) -> jax.Array:
        """(K o C)^T 1, [m], of C the sum of costs [n_k, m_k] along the axes."""
        ones = jnp.ones((self._rows,), costs[0].dtype)
        number = len(costs)
        total = jnp.zeros((), ones.dtype)
        for k, c in enumerate(costs):
            total = total + self._down(ones, {number - 1 - k: c.T})
        return total

    @property
    def _rows(self) -> int:
        n, lines = self.stages[0].log_in.shape
        return n * lines

    def _down(self, u: jax.Array, factors: dict[int, jax.Array]) -> jax.Array:
        for k, s in enumerate(self.stages):
            u = axis_kernel.apply(s, u.reshape(-1, s.log_in.shape[0]), factors.get(k))
        return u.reshape(-1)

    def _up(self, v: jax.Array, power: int) -> jax.Array:
        for s in reversed(self.stages):
            v = v.reshape(s.log_out.shape)
            v = axis_kernel.apply_transposed(s, v, power=power)
        return v.reshape(-1)


def _lines(log: jax.Array, tiles: TiledCost) -> jax.Array:
    """[n_k, r] an array whose last axis is that of the tiles, that axis first."""
    return log.reshape(-1, tiles.cost.shape[1]).T


def log_sums(tiles: tuple[TiledCost, ...], log: jax.Array) -> jax.Array:
    """[m] log sum_i exp(l_i - C_ij / epsilon) of l [n]; last axis first."""
    for t in tiles:
        log = axis_kernel.log_sums(t, _lines(log, t))
    return log.reshape(-1)


def absorb(
    tiles: tuple[TiledCost, ...], log: jax.Array
) -> tuple[SeparableKernel, jax.Array]:
    """Kernel of l = f / epsilon [n], and [m] the logarithms that it was divided by."""
    stages = []
    for t in tiles:
        stages.append(axis_kernel.axis_kernel(t, _lines(log, t)))
        log = stages[-1].log_out
    return SeparableKernel(tuple(stages)), log.reshape(-1)
