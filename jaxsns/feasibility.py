"""Proof that forbidden pairs leave no plan, read off potentials that diverged.

A set of rows whose masses exceed those of all columns that they may use rules every
plan out (Hall's condition; Farkas' lemma for transport). In an iteration on such a
problem the potentials of such a set rise without bound, so the sets looked at are
those of the largest potentials.
"""

import jax
import jax.numpy as jnp

from jaxsns.checks import mass_slack
from jaxsns.geometry import Grid
from jaxsns.numerics import is_forbidden
from jaxsns.problem import Problem


def _overfull(cost, a, rho_a, b, rho_b, f, slack) -> jax.Array:
    """[] bool: the rows of some k largest potentials have more than they can send."""
    must = a if rho_a is None else jnp.where(jnp.isinf(rho_a), a, 0)
    much = jnp.sum(a) + jnp.sum(b)
    can = b if rho_b is None else jnp.where(jnp.isinf(rho_b) | (b <= 0), b, much)
    real = a > 0
    # int64, as argsort has it, would be two arrays of costs in float32.
    order = jnp.argsort(jnp.where(real, -f, jnp.inf)).astype(jnp.int32)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(f.size, dtype=jnp.int32))
    # A column counts from the first row on that may use it.
    used = ~is_forbidden(cost) & real[:, None]
    last = order.shape[0]
    first = jnp.min(jnp.where(used, rank[:, None], last), axis=0)
    opened = jnp.zeros((last + 1,), b.dtype).at[first].add(can)[:last]
    return jnp.any(jnp.cumsum(must[order]) > jnp.cumsum(opened) + slack)


def infeasible(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] bool: a set of rows or of columns proves that there is no plan.

    False proves nothing. O(n m) time, two arrays of the size of the costs.
    """
    if isinstance(problem.geometry, Grid):
        return jnp.asarray(False)  # a grid has no forbidden pairs
    cost = problem.geometry.dense().cost
    slack = 8 * mass_slack(problem.dtype, *problem.shape) * jnp.sum(problem.a)
    rows = problem.a, problem.rho_a
    columns = problem.b, problem.rho_b
    by_rows = _overfull(cost, *rows, *columns, f, slack)
    return by_rows | _overfull(cost.T, *columns, *rows, g, slack)
