"""A fixed number of plain Sinkhorn sweeps: on a kernel, or unrolled for derivatives.

A sweep is the textbook's: the potential of one side by the soft minimum over the other,
then that one by the first. The side that comes last ends exact.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control, hints
from jaxsns.numerics import finite_minus_inf
from jaxsns.problem import arguments, dual, gauge, stabilised
from jaxsns.problem.problem import Problem
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.solvers.kernel_loop import KernelState, Limits, Method, Moved, sweep_record
from jaxsns.solvers.newton import newton


def memory(dtype: jnp.dtype, before: Any) -> None:
    """Nothing is kept."""
    del dtype, before


def start(problem: Problem, kernel: KernelProblem) -> Iterate:
    """Iterate at x = 0; its error is large, so that no sweep is left out."""
    first = newton.start(problem, kernel)
    return first._replace(error=_unknown(first.error))


def _unknown(like: jax.Array) -> jax.Array:
    """[] error of which nobody knows more than that it is finite."""
    return jnp.full_like(like, jnp.finfo(like.dtype).max)


def step(problem: KernelProblem, limits: Limits, s: KernelState) -> Moved:
    """One sweep on a problem whose rows are to end exact: columns, then rows."""
    del limits
    y = stabilised.column_update(problem, s.iterate.x)
    reach = problem.kernel.times(jnp.exp(y))
    # A row without mass fits at -inf, which would look like a kernel that is used up.
    x = jnp.where(problem.rows.real, problem.rows.fit(jnp.log(reach)), 0)
    rows = jnp.exp(x) * reach
    # Nobody looks at errors on the way; only a number that is not finite ends it.
    finite = jnp.all(jnp.isfinite(x))
    error = jnp.where(finite, _unknown(s.iterate.error), jnp.nan)
    iterate = Iterate(x, y, rows, error)
    gain, counts = jnp.ones_like(iterate.error), s.counts.plus(sweeps=1)
    return Moved(iterate, None, gain, counts, sweep_record(iterate.error))


METHOD = Method(
    start,
    memory,
    step,
    newton.repair,
    None,
    1.0,
    columns_fit=False,
    translates=False,  # the textbook's sweeps do not
)


@hints.answered
def unrolled_sinkhorn(problem: Problem, steps: int) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) potentials after `steps` sweeps in the log domain, gauge fixed.

    Derivatives go through every sweep: forward and reverse mode, any order, memory
    O(steps (n + m)) plus what the sweeps keep. No status: look at
    `dual.marginal_error` of the result. Two passes a sweep.
    """
    if not isinstance(problem, Problem):
        raise TypeError(
            "problem must be a Problem, which make_problem makes; got "
            f"{type(problem).__name__}"
        )
    steps = arguments.as_count("steps", steps)
    low = finite_minus_inf(problem.dtype)

    def sweep(g, _):
        f = dual.row_update(problem, g)
        g = dual.column_update(problem, f)
        return jnp.where(problem.b > 0, g, low), f

    g = jnp.where(problem.b > 0, jnp.zeros_like(problem.b), low)
    g, fs = control.scan(sweep, g, None, length=steps)
    return gauge.centre(problem, fs[-1], g)
