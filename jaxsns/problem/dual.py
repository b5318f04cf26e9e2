"""The dual problem: its value, marginals, gauge, and its form on a kernel.

    maximise  <a, f> + <b, g> - epsilon sum_ij exp((f_i + g_j - C_ij) / epsilon)

Its gradient is (a - P 1, b - P^T 1); adding t to f and taking it from g changes
nothing, which is the gauge. An atom without mass has potential -inf. A marginal that
is penalised has a concave function in place of <a, f> (see `marginal`), and the mass
that is wanted at f in place of a; then there is no gauge.
Source: shared convention of OTT-JAX (no reference measure a b^T in the plan).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense, Grid
from jaxsns.geometry.kernel import Kernel
from jaxsns.numerics import derivative_only, finite_minus_inf, smallest_normal
from jaxsns.problem import marginal
from jaxsns.problem.marginal import MarginalConstraint
from jaxsns.problem.problem import Problem, has_gauge


def finite(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials with a finite stand-in for -inf at atoms without mass.

    With it every product 0 * potential and every derivative of one is 0, not NaN.
    """
    a, b = problem.a > 0, problem.b > 0
    low = jnp.where(jnp.any(a) & jnp.any(b), finite_minus_inf(problem.dtype), jnp.nan)
    return jnp.where(a, f, low), jnp.where(b, g, low)


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


def weighted(masses: jax.Array, potential: jax.Array) -> jax.Array:
    """[] sum of mass times potential, where 0 * -inf is 0."""
    return jnp.sum(masses * jnp.where(masses > 0, potential, 0))


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


def _errors(problem: Problem, f, g, rows: jax.Array, columns: jax.Array):
    a, b = target_masses(problem, f, g)
    total = jnp.minimum(jnp.sum(a), jnp.sum(b))
    # Differences below it are 0: that counts where masses are tiny.
    least = smallest_normal(problem.dtype)
    row_error = jnp.sum(jnp.maximum(jnp.abs(rows - a), least)) / total
    return row_error, jnp.sum(jnp.maximum(jnp.abs(columns - b), least)) / total


def marginal_error(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] L1 error of both marginals of the plan, relative to its mass."""
    rows, columns = marginal_errors(problem, f, g)
    return rows + columns


def centre(problem: Problem, f: jax.Array, g: jax.Array):
    """Fix the gauge, if there is one: <a, f> = <b, g>, each half of their sum.

    The same for n < m and n > m, and blind to atoms without mass. A shift is no more
    exact than what it takes away: it takes two.
    """
    for _ in range(2):
        shift = gauge_shift(problem, f, g)
        f, g = f - shift, g + shift
    return f, g


def with_gauge(problem: Problem, f: jax.Array, g: jax.Array):
    """Centred potentials as they are, with the derivative that `centre` has.

    Potentials that were judged must not be shifted once more: the shift is rounding
    only, but they are rounded by it, by up to 1e-7 |f| / epsilon in float32.
    """
    none = derivative_only(gauge_shift(problem, f, g))
    return f - none, g + none


def gauge_shift(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] what `centre` takes from f and adds to g."""
    surplus = weighted(problem.a, f) - weighted(problem.b, g)
    shift = surplus / (jnp.sum(problem.a) + jnp.sum(problem.b))
    if not problem.balanced:
        shift = jnp.where(has_gauge(problem), shift, 0)
    return shift


def translated(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n] f with the constant that suits the penalties best; as it is without any.

    Large penalties nearly leave the gauge free: steps on kernels would find the
    constant only in as many of them as it is long.
    """
    if problem.balanced:
        return f
    rows = marginal.constraint(problem.a, problem.rho_a, f, problem.epsilon)
    columns = marginal.constraint(problem.b, problem.rho_b, g, problem.epsilon)
    t = marginal.translation(rows, columns, jnp.zeros_like(f), jnp.zeros_like(g))
    return jnp.where(problem.a > 0, f + problem.epsilon * t, f)


def judged(problem: Problem, f: jax.Array, g: jax.Array):
    """`final` potentials and their error: (f [n], g [m], []).

    Rounding of f and g counts in the error like everything else. One pass.
    """
    f, g = final(problem, f, g)
    return f, g, marginal_error(problem, f, g)


def final(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials as they are returned: gauge fixed, -inf at atoms without mass."""
    f, g = centre(problem, f, g)
    f = jnp.where(problem.a > 0, f, -jnp.inf)
    g = jnp.where(problem.b > 0, g, -jnp.inf)
    return f, g


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


class KernelProblem(NamedTuple):
    """A kernel built from row potentials, and the column scaling that fits them.

    plan = diag(exp(x)) K diag(exp(y)) with log scalings x [n] and y [m], so that a
    change of potentials costs products with K and no exponential of a matrix.
    Potentials of a pair: f = f0 + epsilon x, g = epsilon y - top.
    """

    kernel: Kernel
    f: jax.Array  # [n] cost, finite
    top: jax.Array  # [m] cost
    y: jax.Array  # [m] log scaling that fits the columns for x = 0
    rows: jax.Array  # [n] row sums of the plan for x = 0, in mass
    row_target: MarginalConstraint  # what is asked of the rows, as a function of x
    column_target: MarginalConstraint  # and of the columns, of y


def columns_for(kernel: Kernel, target: MarginalConstraint, x: jax.Array) -> jax.Array:
    """[m] log scaling y that makes column sums as wanted for a given x."""
    return target.fit(jnp.log(kernel.transpose_times(jnp.exp(x))))


def rows_for(kernel: Kernel, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n] row sums of diag(exp(x)) K diag(exp(y))."""
    return jnp.exp(x) * kernel.times(jnp.exp(y))


def _absorb(problem: Problem, f: jax.Array) -> KernelProblem:
    epsilon = problem.epsilon
    geometry = problem.geometry.formed()
    assert isinstance(geometry, Dense | Grid), (
        "streamed costs have solvers of their own"
    )
    kernel, top = geometry.absorb(f, epsilon)
    row_target = marginal.constraint(problem.a, problem.rho_a, f, epsilon)
    column_target = marginal.constraint(problem.b, problem.rho_b, -top, epsilon)
    x = jnp.zeros_like(f)
    y = columns_for(kernel, column_target, x)
    rows = rows_for(kernel, x, y)
    return KernelProblem(kernel, f, top, y, rows, row_target, column_target)


def row_error(absorbed: KernelProblem) -> jax.Array:
    """[] L1 error of the rows at x = 0, relative; columns are as wanted."""
    wanted = absorbed.row_target.mass
    return jnp.sum(jnp.abs(absorbed.rows - wanted)) / jnp.sum(wanted)


@jax.named_scope("absorb")
def absorb(problem: Problem, f: jax.Array) -> KernelProblem:
    """Build the kernel of f; if a row of it vanishes, of one Sinkhorn sweep of f.

    After a sweep in the log domain row sums are at least a_i min(b): the fall-back
    cannot vanish as well, unless hardly any mass is wanted there. One pass, or four
    in the fall-back.
    """
    f = jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype))
    first = _absorb(problem, f)
    lost = jnp.any((first.rows <= 0) & (first.row_target.mass > 0))

    def sweep(_):
        g = jnp.where(
            problem.b > 0,
            problem.epsilon * first.y - first.top,
            finite_minus_inf(problem.dtype),
        )
        return _absorb(problem, row_update(problem, g))

    return jax.lax.cond(lost, sweep, lambda _: first, None)
