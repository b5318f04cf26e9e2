"""The problem as data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.numerics import safe_log


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Entropic transport between a and b, arrays of one dtype; see `make_problem`.

    Attributes:
      geometry: the costs, [n, m].
      a: [n] masses of the rows, some may be zero.
      b: [m] masses of the columns, some may be zero.
      epsilon: [] regularisation, in units of cost.
      rho_a: [n] weights of the penalty rho_a KL(P 1 | a), in units of cost, infinite
        where P 1 = a is asked for; None: equality for all, known when compiled.
      rho_b: [m] or None, likewise for the columns.
    """

    geometry: Any  # a `geometry.Geometry`
    a: jax.Array
    b: jax.Array
    epsilon: jax.Array
    rho_a: jax.Array | None = None
    rho_b: jax.Array | None = None

    __repr__ = hints.one_line

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.geometry.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of all arrays."""
        return self.a.dtype

    @property
    def balanced(self) -> bool:
        """Whether equality of all marginals is known when compiled."""
        return self.rho_a is None and self.rho_b is None

    def with_epsilon(self, epsilon: ArrayLike) -> "Problem":
        """Return the same problem at another regularisation; compiles nothing."""
        return dataclasses.replace(self, epsilon=jnp.asarray(epsilon, self.dtype))

    def formed(self) -> "Problem":
        """Return the problem on the geometry that the solvers want."""
        return dataclasses.replace(self, geometry=self.geometry.formed())

    def dense(self) -> "Problem":
        """Return the problem with its costs as a matrix."""
        return dataclasses.replace(self, geometry=self.geometry.dense())

    def transposed(self) -> "Problem":
        """Exchange rows and columns of a problem whose costs are formed."""
        geometry = self.geometry
        return Problem(
            geometry.transposed(), self.b, self.a, self.epsilon, self.rho_b, self.rho_a
        )


def has_gauge(problem: Problem) -> jax.Array:
    """[] bool: equality is asked of every atom, so that potentials have a gauge."""
    out = jnp.asarray(True)
    for mass, rho in ((problem.a, problem.rho_a), (problem.b, problem.rho_b)):
        if rho is not None:
            out &= jnp.all(jnp.isinf(rho) | (mass <= 0))
    return out


def log_masses(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) log a and log b, -inf where there is no mass."""
    return safe_log(problem.a), safe_log(problem.b)
