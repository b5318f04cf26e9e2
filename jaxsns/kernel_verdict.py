"""The error of a plan, told by the kernel that it was found on, without a pass.

A kernel repeats its own rounding errors, so products with it do not show them. What
they can be at most is known, entry by entry, and of the whole plan from vectors alone.
"""

import jax
import jax.numpy as jnp

from jaxsns import dual
from jaxsns.numerics import far_below, lost_mass, unit_roundoff
from jaxsns.problem import Problem


def _mean(weights: jax.Array, x: jax.Array) -> jax.Array:
    """[] mean of x, which may be infinite where there is no weight."""
    return jnp.sum(weights * jnp.where(weights > 0, x, 0)) / jnp.sum(weights)


def _entropy(weights: jax.Array) -> jax.Array:
    return jnp.sum(jax.scipy.special.entr(weights / jnp.sum(weights)))


def noise(
    problem: Problem,
    absorbed: dual.Absorbed,
    f: jax.Array,
    g: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
) -> jax.Array:
    """[] what rounding on a kernel hides at most of the error of f and g; relative.

    f, g: finite where there is mass, on the gauge of the kernel. rows, columns: sums of
    their plan, or what they shall be. To first order: the sum over the plan of what
    rounds in each entry, once for the rows and once for the columns, in half units:

        3 z + |top| / epsilon + 2 in K, where z = -log K = x + y - log plan,
        |f| / epsilon + 2 |x| + 2 and the same of g in the scalings.

    The mean of -log plan is its entropy, at most that of its two marginals.
    """
    epsilon = problem.epsilon
    x, y = (f - absorbed.f) / epsilon, (g + absorbed.top) / epsilon
    row, column = (lambda v: _mean(rows, v)), (lambda v: _mean(columns, v))
    spread = _entropy(rows) + _entropy(columns) - jnp.log(jnp.sum(rows))
    depth = row(x) + column(y) + spread
    scalings = row(jnp.abs(x)) + column(jnp.abs(y))
    potentials = row(jnp.abs(f)) + column(jnp.abs(g) + jnp.abs(absorbed.top))
    each = 3 * depth + 2 * scalings + potentials / epsilon + 6
    return unit_roundoff(problem.dtype) * each


def judged(problem: Problem, absorbed: dual.Absorbed, f: jax.Array, g: jax.Array):
    """`dual.judged` by two products with a kernel that is at hand, and no pass.

    The last two numbers are what it may have missed, relative: what rounding hides, and
    what entries too small for the kernel can make.
    """
    real, some = problem.a > 0, problem.b > 0
    # The shift of the gauge may be too large for exponentials: it is taken back.
    shift = dual.gauge_shift(problem, f, g)
    f, g = dual.final(problem, f, g)
    low = far_below(problem.dtype)
    back = jnp.where(real, f + shift, low), jnp.where(some, g - shift, low)
    x = jnp.where(real, (back[0] - absorbed.f) / problem.epsilon, low)
    y = jnp.where(some, (back[1] + absorbed.top) / problem.epsilon, low)
    u, v = jnp.exp(x), jnp.exp(y)
    rows = u * absorbed.kernel.times(v)
    columns = v * absorbed.kernel.transpose_times(u)
    row_error, column_error = dual.errors_of(problem, f, g, rows, columns)
    total = jnp.minimum(jnp.sum(rows), jnp.sum(columns))
    hidden = noise(problem, absorbed, *back, rows, columns)
    lost = 2 * lost_mass(u, v) / total
    return f, g, row_error + column_error, hidden, lost
