"""The plan of a streamed geometry behind the products that solvers use."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import finite_minus_inf, matmul

# [D30]
FORBIDDEN = (
    1e-5  # of `finite_minus_inf`: what is further below stands for a forbidden pair
)


def log_entries(may_forbid: bool, z: jax.Array, log_v: jax.Array) -> jax.Array:
    """[k, ...] logarithms of entries, given reduced costs z [k, ...] and log_v [k].

    Potentials of a column without permitted pairs cancel what stands for these.
    """
    log = z + log_v[:, None]
    if not may_forbid:
        return log
    low = finite_minus_inf(z.dtype)
    return jnp.where(z <= FORBIDDEN * low, low, log)


class StreamedKernel(NamedTuple):
    """K_ij = exp((f_i - C_ij) / epsilon + log_v_j), with a pass for each product."""

    geometry: Any  # a `Streamed`
    f: jax.Array  # [n] cost
    log_v: jax.Array  # [m]
    epsilon: jax.Array  # []

    factorisable = False

    def _columns(self, function, inputs=(), shared=()):
        may_forbid = self.geometry.may_forbid

        def block(z, given, shared):
            log_v, more = given
            return function(jnp.exp(log_entries(may_forbid, z, log_v)), more, shared)

        return self.geometry.columns(
            block, self.f, self.epsilon, (self.log_v, inputs), shared
        )

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [n]; one pass."""
        return self._columns(lambda k, v, _: (matmul(v, k), ()), v)[0]

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [m]; one pass."""
        return self._columns(lambda k, _, u: ((), matmul(k, u)), shared=u)[1]

    def normal(self, weights: jax.Array, u: jax.Array) -> jax.Array:
        """K diag(weights) K^T u, [n], in one pass instead of two.

        A block of columns is whole in K^T u, so its share of the rest follows at once.
        """

        def block(k, weights, u):
            return matmul(weights * matmul(k, u), k), ()

        return self._columns(block, weights, u)[0]

    def squares_times(self, v: jax.Array) -> jax.Array:
        """(K o K) v, [n]; one pass."""
        return self._columns(lambda k, v, _: (matmul(v, k * k), ()), v)[0]

    def sums(self, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of K diag(v); one pass."""
        return self._columns(lambda k, v, _: (matmul(v, k), v * jnp.sum(k, axis=1)), v)
