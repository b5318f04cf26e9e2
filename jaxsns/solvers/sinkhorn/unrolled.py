"""Plain Sinkhorn of fixed length, differentiable by unrolling; for comparison."""

import jax
import jax.numpy as jnp

from jaxsns.numerics import finite_minus_inf
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem


def unrolled_sinkhorn(problem: Problem, steps: int) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) potentials after `steps` sweeps in the log domain, gauge fixed.

    Derivatives go through every sweep: forward and reverse mode, any order, memory
    O(steps (n + m)) plus what the sweeps keep. No status: look at
    `dual.marginal_error` of the result. Two passes a sweep.
    """
    low = finite_minus_inf(problem.dtype)

    def sweep(g, _):
        f = dual.row_update(problem, g)
        g = dual.column_update(problem, f)
        return jnp.where(problem.b > 0, g, low), f

    g = jnp.where(problem.b > 0, jnp.zeros_like(problem.b), low)
    g, fs = jax.lax.scan(sweep, g, None, length=steps)
    return dual.centre(problem, fs[-1], g)
