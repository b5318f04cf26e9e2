"""Parts of a cost that change no plan, taken out before a solve and given back after.

A cost r_i + c_j + C_ij has the plan of C, if all marginals must be met exactly. The
potentials are those of C plus r and c, which may be thousands of times as large: in
float32 they would take all digits of what epsilon is compared with [D33].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.problem import gauge
from jaxsns.problem.problem import Problem


class Offsets(NamedTuple):
    """What the costs lost: C = reduced C + rows_i + columns_j."""

    rows: jax.Array  # [n] in units of cost
    columns: jax.Array  # [m]

    def taken(self, f: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Potentials of the reduced costs, from those of the costs."""
        return f - self.rows, g - self.columns

    @jax.jit  # outside a program its operations are compiled one by one [D49]
    def given_back(self, problem: Problem, f: jax.Array, g: jax.Array):
        """Potentials of the costs in their gauge <a, f> = <b, g>."""
        return gauge.centre(problem, f + self.rows, g + self.columns)

    def value(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """[] cost of the offsets for masses a [n] and b [m]."""
        return jnp.sum(a * self.rows) + jnp.sum(b * self.columns)


class Reduced(NamedTuple):
    """A problem without its offsets, potentials of it, and the offsets."""

    problem: Problem
    f: jax.Array  # [n] in units of cost
    g: jax.Array  # [m]
    offsets: Offsets

    def shift(self) -> jax.Array:
        """[] what `given_back` takes from f and adds to g to fix the gauge."""
        f, g = self.f + self.offsets.rows, self.g + self.offsets.columns
        return gauge.gauge_shift(self.problem, f, g)


@jax.jit
def reduce(problem: Problem) -> tuple[Problem, Offsets] | None:
    """Problem with smaller costs and the same plan; None where nothing is known.

    Only for balanced problems. Offsets of points are differentiable functions of them;
    those of a matrix are constants, which is as good: the potentials change by what is
    taken out. Cost: O((n + m) d) for points, two minima of a matrix.
    """
    if not problem.balanced:
        return None
    parts = problem.geometry.reduced(problem.a > 0, problem.b > 0)
    if parts is None:
        return None
    geometry, rows, columns = parts
    new = Problem(geometry, problem.a, problem.b, problem.epsilon)
    return new, Offsets(rows, columns)
