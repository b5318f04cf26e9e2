"""The dual problem: its value, marginals, gauge, and its form on a kernel.

    maximise  <a, f> + <b, g> - epsilon sum_ij exp((f_i + g_j - C_ij) / epsilon)

Its gradient is (a - P 1, b - P^T 1); adding t to f and taking it from g changes
nothing, which is the gauge. An atom without mass has potential -inf.
Source: shared convention of OTT-JAX (no reference measure a b^T in the plan).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.numerics import far_below
from jaxsns.problem import Problem, log_masses


def finite(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials with a finite stand-in for -inf at atoms without mass.

    With it every product 0 * potential and every derivative of one is 0, not NaN.
    """
    low = far_below(problem.dtype)
    return jnp.where(problem.a > 0, f, low), jnp.where(problem.b > 0, g, low)


def plan(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] plan in mass; zero rows and columns where there is no mass."""
    f, g = finite(problem, f, g)
    return problem.geometry.dense().plan(f, g, problem.epsilon)


def marginals(problem: Problem, f: jax.Array, g: jax.Array):
    """([n], [m]) row and column sums of the plan, in one pass."""
    mass = plan(problem, f, g)
    return jnp.sum(mass, axis=1), jnp.sum(mass, axis=0)


def value(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] dual objective, in cost times mass; a lower bound of the primal optimum."""
    rows = marginals(problem, f, g)[0]
    return linear_part(problem, f, g) - problem.epsilon * jnp.sum(rows)


def linear_part(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] <a, f> + <b, g>; an atom without mass adds 0."""
    return weighted(problem.a, f) + weighted(problem.b, g)


def weighted(masses: jax.Array, potential: jax.Array) -> jax.Array:
    """[] sum of mass times potential, where 0 * -inf is 0."""
    return jnp.sum(masses * jnp.where(masses > 0, potential, 0))


def marginal_error(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] L1 error of both marginals of the plan, relative to the mass to be moved."""
    rows, columns = marginals(problem, f, g)
    missing = jnp.sum(jnp.abs(rows - problem.a)) + jnp.sum(jnp.abs(columns - problem.b))
    return missing / problem.total


def centre(problem: Problem, f: jax.Array, g: jax.Array):
    """Fix the gauge: <a, f> = <b, g>, so that each is half of their sum.

    The same for n < m and n > m, and blind to atoms without mass.
    """
    surplus = weighted(problem.a, f) - weighted(problem.b, g)
    shift = surplus / (jnp.sum(problem.a) + jnp.sum(problem.b))
    return f - shift, g + shift


def judged(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials as they are returned, and their error: (f [n], g [m], []).

    Gauge fixed, -inf at atoms without mass. Rounding of f and g counts in the error
    like everything else. One pass.
    """
    f, g = centre(problem, f, g)
    f = jnp.where(problem.a > 0, f, -jnp.inf)
    g = jnp.where(problem.b > 0, g, -jnp.inf)
    return f, g, marginal_error(problem, f, g)


def c_transform(problem: Problem, f: jax.Array) -> jax.Array:
    """[m] best g for given f: column marginals become exact. One pass."""
    f = jnp.where(problem.a > 0, f, far_below(problem.dtype))
    soft = problem.geometry.dense().softmin(f, problem.epsilon, axis=0)
    return problem.epsilon * log_masses(problem)[1] + soft


class Absorbed(NamedTuple):
    """A kernel built from row potentials, and the column scaling that fits them.

    plan = diag(exp(x)) K diag(exp(y)) with log scalings x [n] and y [m], so that a
    change of potentials costs products with K and no exponential of a matrix.
    Potentials of a pair: f = f0 + epsilon x, g = epsilon y - top.
    """

    kernel: DenseKernel
    f: jax.Array  # [n] cost, finite
    top: jax.Array  # [m] cost
    y: jax.Array  # [m] log scaling that makes the columns exact for x = 0
    rows: jax.Array  # [n] row sums of the plan for x = 0, in mass


def columns_for(kernel: DenseKernel, log_b: jax.Array, x: jax.Array) -> jax.Array:
    """[m] log scaling y that makes column sums exact for a given x."""
    return log_b - jnp.log(kernel.transpose_times(jnp.exp(x)))


def rows_for(kernel: DenseKernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n] row sums of diag(exp(x)) K diag(exp(y))."""
    return jnp.exp(x) * kernel.times(jnp.exp(y))


def _absorb(problem: Problem, f: jax.Array) -> Absorbed:
    kernel, top = problem.geometry.dense().absorb(f, problem.epsilon)
    x = jnp.zeros_like(f)
    y = columns_for(kernel, log_masses(problem)[1], x)
    return Absorbed(kernel, f, top, y, rows_for(kernel, x, y))


def absorb(problem: Problem, f: jax.Array) -> Absorbed:
    """Build the kernel of f; if a row of it vanishes, of one Sinkhorn sweep of f.

    After a sweep in the log domain row sums are at least a_i min(b): the fall-back
    cannot vanish as well. One pass, or four in the fall-back.
    """
    f = jnp.where(problem.a > 0, f, far_below(problem.dtype))
    first = _absorb(problem, f)
    lost = jnp.any((first.rows <= 0) & (problem.a > 0))

    def sweep(_):
        g = jnp.where(
            problem.b > 0,
            problem.epsilon * first.y - first.top,
            far_below(problem.dtype),
        )
        soft = problem.geometry.dense().softmin(g, problem.epsilon, axis=1)
        log_a = log_masses(problem)[0]
        new = problem.epsilon * log_a + soft
        return _absorb(problem, jnp.where(problem.a > 0, new, far_below(f.dtype)))

    return jax.lax.cond(lost, sweep, lambda _: first, None)
