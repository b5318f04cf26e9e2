"""The dual problem: its value, marginals and errors, and half-steps.

    maximise  <a, f> + <b, g> - epsilon sum_ij exp((f_i + g_j - C_ij) / epsilon)

Its gradient is (a - P 1, b - P^T 1); adding t to f and taking it from g changes
nothing, which is the gauge. An atom without mass has potential -inf. A marginal that
is penalised has a concave function in place of <a, f> (see `marginal`), and the mass
that is wanted at f in place of a; then there is no gauge.
Source: shared convention of OTT-JAX (no reference measure a b^T in the plan).
"""

import jax
import jax.numpy as jnp

from jaxsns.numerics import finite_minus_inf, machine_epsilon, smallest_normal
from jaxsns.problem import gauge, marginal
from jaxsns.problem.problem import Problem

# Of the error that rounding explains, in machine epsilons: without potentials, and for
# each epsilon of their size [D03].
ROUNDING_BASE, ROUNDING_SLOPE = 8.0, 1.5
HIDDEN_SHARE = 0.1  # of the error by rounding: a smaller one on a kernel is lost [D03]
LARGEST_FLOOR = 1e-2  # relative L1 error that rounding may explain at most [D03]


def finite(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials with a finite stand-in for -inf at atoms without mass.

    With it every product 0 * potential and every derivative of one is 0, not NaN.
    """
    a, b = problem.a > 0, problem.b > 0
    low = jnp.where(jnp.any(a) & jnp.any(b), finite_minus_inf(problem.dtype), jnp.nan)
    return jnp.where(a, f, low), jnp.where(b, g, low)


def nothing(problem: Problem) -> jax.Array:
    """[] potential that stands for no mass."""
    return jnp.asarray(finite_minus_inf(problem.dtype), problem.dtype)


def plan(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] plan in mass; zero rows and columns where there is no mass."""
    f, g = finite(problem, f, g)
    return problem.geometry.dense().plan(f, g, problem.epsilon)


def marginals(problem: Problem, f: jax.Array, g: jax.Array):
    """([n], [m]) row and column sums of the plan, in one pass."""
    f, g = finite(problem, f, g)
    return problem.geometry.formed().marginals(f, g, problem.epsilon)


def value(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] dual objective, in cost times mass; a lower bound of the primal optimum."""
    rows = marginals(problem, f, g)[0]
    return linear_part(problem, f, g) - problem.epsilon * jnp.sum(rows)


def linear_part(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] <a, f> + <b, g>, or what stands for it; an atom without mass adds 0."""
    rows = marginal.dual_value(problem.a, problem.rho_a, f)
    return rows + marginal.dual_value(problem.b, problem.rho_b, g)


def target_masses(problem: Problem, f: jax.Array, g: jax.Array):
    """([n], [m]) masses that the marginals shall have: a and b if balanced."""
    return (
        marginal.target_mass(problem.a, problem.rho_a, f),
        marginal.target_mass(problem.b, problem.rho_b, g),
    )


def marginal_errors(problem: Problem, f: jax.Array, g: jax.Array):
    """([], []) L1 errors of the rows and columns of the plan, relative to its mass.

    The mass is what is wanted of the rows, a if they are not penalised, or of the
    columns if that is less: the same for a problem and its transpose, and no less
    than either.
    """
    return _errors(problem, f, g, *marginals(problem, f, g))


def judged_total(problem: Problem, wanted: jax.Array) -> jax.Array:
    """[] what errors are relative to, where so much is wanted in total.

    Where next to nothing is moved: rounding of what is given.
    """
    if problem.balanced:
        return wanted
    given = jnp.minimum(jnp.sum(problem.a), jnp.sum(problem.b))
    return jnp.maximum(wanted, machine_epsilon(problem.dtype) * given)


def _errors(problem: Problem, f, g, rows: jax.Array, columns: jax.Array):
    a, b = target_masses(problem, f, g)
    total = judged_total(problem, jnp.minimum(jnp.sum(a), jnp.sum(b)))
    # Differences below it are 0: that counts where masses are tiny.
    least = smallest_normal(problem.dtype)
    row_error = jnp.sum(jnp.maximum(jnp.abs(rows - a), least)) / total
    return row_error, jnp.sum(jnp.maximum(jnp.abs(columns - b), least)) / total


def marginal_error(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] L1 error of both marginals of the plan, relative to its mass."""
    rows, columns = marginal_errors(problem, f, g)
    return rows + columns


@jax.named_scope("check")
def centred_with_error(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials as they are returned, and their error: (f [n], g [m], []).

    The gauge is fixed, and -inf stands where there is no mass. Rounding of f and g
    counts in the error like everything else. One pass.
    """
    f, g = gauge.centre(problem, f, g)
    f = jnp.where(problem.a > 0, f, -jnp.inf)
    g = jnp.where(problem.b > 0, g, -jnp.inf)
    return f, g, marginal_error(problem, f, g)


def refitted(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[m] g where the columns fit f [n], as exact as the dtype can hold it.

    Under a penalty that is small against epsilon g is far smaller than the costs.
    Scalings of a kernel do not know it well enough for exp(-g / rho). One pass; none
    without penalties.
    """
    return g if problem.balanced else column_update(problem, f)


def rounding_error(
    problem: Problem, f: jax.Array, g: jax.Array, share: jax.Array
) -> jax.Array:
    """[] marginal error that rounding of f [n] and g [m] may make, times `share`.

    A potential of size s is known to u s, and the plan to u s / epsilon of itself.
    """
    sizes = [
        jnp.max(jnp.where(mass > 0, jnp.abs(x), 0))
        for mass, x in ((problem.a, f), (problem.b, g))
    ]
    return share * rounding_floor(jnp.maximum(*sizes) / problem.epsilon)


def hidden_error(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] marginal error below which steps cannot be seen once f and g are rounded.

    A share of what their rounding makes of the marginals as a rule: a number x of the
    dtype is off by a sixth of machine epsilon times |x| on average.
    """
    mean = gauge.weighted(problem.a, jnp.abs(f)) / jnp.sum(problem.a)
    mean += gauge.weighted(problem.b, jnp.abs(g)) / jnp.sum(problem.b)
    rounding = machine_epsilon(problem.dtype) / 3 * mean / problem.epsilon
    hidden = HIDDEN_SHARE * rounding
    # Of stand-ins for infinity, where all pairs of an atom are forbidden, nothing.
    return jnp.where(hidden <= LARGEST_FLOOR, hidden, 0)


def rounding_floor(size: jax.Array) -> jax.Array:
    """[...] marginal error that rounding explains, by the potentials over epsilon."""
    unit = machine_epsilon(size.dtype)
    floor = unit * (ROUNDING_BASE + ROUNDING_SLOPE * size)
    # What rounding cannot be told from is no answer, however large the potentials are.
    return jnp.where(floor <= LARGEST_FLOOR, floor, 0)


def row_update(problem: Problem, g: jax.Array) -> jax.Array:
    """[n] best f for given g, where no mass finite: half a sweep. One pass."""
    soft = problem.geometry.formed().softmin(g, problem.epsilon, axis=1)
    f = marginal.fitted_potential(problem.a, problem.rho_a, soft, problem.epsilon)
    return jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype))


def column_update(problem: Problem, f: jax.Array) -> jax.Array:
    """[m] best g for given f: column marginals become as wanted. One pass."""
    f = jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype))
    soft = problem.geometry.formed().softmin(f, problem.epsilon, axis=0)
    return marginal.fitted_potential(problem.b, problem.rho_b, soft, problem.epsilon)
