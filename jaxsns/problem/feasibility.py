"""Proof that forbidden pairs leave no plan, read off potentials that diverged.

A set of rows whose masses exceed those of all columns that they may use rules every
plan out (Hall's condition; Farkas' lemma for transport). In an iteration on such a
problem the potentials of such a set rise without bound, so the sets looked at are
those of the largest potentials.
"""

import jax
import jax.numpy as jnp

from jaxsns.geometry import Grid
from jaxsns.geometry.column_maxima import maxima
from jaxsns.linear.mapping import each
from jaxsns.numerics import is_forbidden
from jaxsns.problem.checks import mass_slack
from jaxsns.problem.problem import Problem


def _overfull(cost, a, rho_a, b, rho_b, f, slack) -> jax.Array:
    """[] bool: the rows of some k largest potentials have more than they can send."""
    must = a if rho_a is None else jnp.where(jnp.isinf(rho_a), a, 0)
    much = jnp.sum(a) + jnp.sum(b)
    can = b if rho_b is None else jnp.where(jnp.isinf(rho_b) | (b <= 0), b, much)
    f = jnp.where(a > 0, f, -jnp.inf)
    allowed = lambda cost, f: jnp.where(is_forbidden(cost), -jnp.inf, f[:, None])
    reach = maxima(allowed, cost, f)

    # Sorting would be less work, and much more to compile, in every solve for this.
    def proves(least: jax.Array) -> jax.Array:
        above = jnp.greater_equal if short else jnp.greater
        total = lambda mass, x: jnp.sum(jnp.where(above(x, least), mass, 0))
        return total(must, f) > total(can, reach) + slack

    # A set for each row, or for each column the most rows that do not need it.
    short = f.size <= reach.size
    return jnp.any(each(proves)(f if short else reach))


def infeasible(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] bool: a set of rows or of columns proves that there is no plan.

    False proves nothing. O(n m) time, one array of the size of the costs.
    """
    if isinstance(problem.geometry, Grid):
        return jnp.asarray(False)  # a grid has no forbidden pairs
    cost = problem.geometry.dense().cost
    slack = 8 * mass_slack(problem.dtype, *problem.shape) * jnp.sum(problem.a)
    rows = problem.a, problem.rho_a
    columns = problem.b, problem.rho_b
    by_rows = _overfull(cost, *rows, *columns, f, slack)
    return by_rows | _overfull(cost.T, *columns, *rows, g, slack)
