"""Derivatives of converged potentials, whatever algorithm found them.

At the solution the marginals of the plan are a and b, or what is wanted in their
place. Differentiating that gives

    [[R, P], [P^T, S]] (df; dg) = -epsilon (d rows; d columns)   at fixed f and g,

d of the surplus, and R and S with what penalties add (R / tau, S / tau). It is
solved on the Schur complement of `schur` through `custom_linear_solve`,
which turns one rule into forward mode, reverse mode, any order and any batch.

Modes that the dtype cannot resolve (a plan that has split into blocks has one
nearly free constant a block) are damped by the shift, not amplified. The plan and
its functions do not see them; gradients of the potentials along them are
ill-posed. A solve that is not even a least-squares solution gives NaN.
Source: implicit function theorem; the normalised form and shift: docs/mathematics.md.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.geometry.kernel import DenseKernel, Kernel
from jaxsns.hessian import conditioning, schur
from jaxsns.implicit import streamed as implicit_streamed
from jaxsns.numerics import machine_epsilon
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem, has_gauge

# [D15]
LARGEST_FACTORISED = 4096  # rows of the smaller side; above it, conjugate gradients
MOST_STEPS = 100_000  # of conjugate gradients [D15]


Solve = Callable[[schur.SchurSystem, jax.Array], jax.Array]


def solve_stored(system: schur.SchurSystem, rhs: jax.Array) -> jax.Array:
    """Solve A x = rhs, [n], where products cost no pass."""
    unit = machine_epsilon(rhs.dtype)
    if system.kernel.factorisable and rhs.shape[0] <= LARGEST_FACTORISED:
        refinements = 1 if unit < 1e-12 else 3
        return schur.solve_cholesky(system, rhs, refinements=refinements)
    steps = min(20 * rhs.shape[0], MOST_STEPS)
    return schur.solve_cg(system, rhs, jnp.asarray(10 * unit), steps).x


def _solve(system: schur.SchurSystem, rhs: jax.Array, inner: Solve) -> jax.Array:
    """Solve A x = rhs for a rhs without gauge component, [n]; NaN if it fails."""
    unit = machine_epsilon(rhs.dtype)
    # The system of products below is linear in rhs, so a scale is taken out first:
    # cotangents of any size neither overflow nor vanish in squares.
    scale = jnp.max(jnp.abs(rhs))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    b = schur.project(system, rhs / scale)
    x = inner(system, b)
    # Along the gauge b has nothing; a large x leaves there what rounding of the sums
    # makes of it, which is no error of x [D23].
    residual = schur.project(system, b - schur.product(system, x))
    # Least squares: what is left may only lie where A is numerically zero, and a
    # product with a large x cannot be known better than to its rounding.
    left = jnp.linalg.norm(schur.product(system, residual))
    # The right side was of size 1 before its gauge component went: where nothing but
    # that was in it (one row, one column), what is left is rounding, and so is x.
    size = 1 + jnp.linalg.norm(x)
    ok = left <= unit**0.5 * jnp.linalg.norm(b) + 100 * unit * size
    return jnp.where(ok, x * scale, jnp.nan)


class Stiffness(NamedTuple):
    """What penalties of the marginals add to the diagonals."""

    rows: ArrayLike = 0.0  # [n]
    columns: ArrayLike = 0.0  # [m]
    gauge: ArrayLike = True  # [] bool: there are none, and potentials have a gauge


BALANCED = Stiffness()


def solve_hessian(
    plan: jax.Array, top: jax.Array, bottom: jax.Array, more: Stiffness = BALANCED
):
    """Solve [[R, P], [P^T, S]] (u; v) = (top; bottom), ([n], [m]).

    The component of the right-hand side along the gauge is dropped. Rows and
    columns without mass give 0. Differentiable in all arguments.
    Cost: O(k^2 max(n, m) + k^3 / 3), k = min(n, m), once for any number of batched
    right-hand sides; three further arrays of the size of the plan.
    """
    n, m = plan.shape
    if n > m:
        swapped = Stiffness(more.columns, more.rows, more.gauge)
        v, u = solve_hessian(plan.T, bottom, top, swapped)
        return u, v
    sums = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    ones = jnp.ones_like(bottom)
    return solve_with(DenseKernel(plan), ones, sums, top, bottom, more, solve_stored)


@jax.named_scope("jaxsns.implicit")
def solve_with(
    kernel: Kernel,
    v: jax.Array,
    sums: tuple[jax.Array, jax.Array],
    top: jax.Array,
    bottom: jax.Array,
    more: Stiffness,
    inner: Solve,
):
    """The same for a plan K diag(v) that is known by its products and its sums.

    inner: solves A x = rhs [n] for a system with K as kernel, by any means; what it
    returns is tested, and is NaN if it is no solution.
    """
    diagonals = sums[0] + more.rows, sums[1] + more.columns
    ones, zero = jnp.ones_like(top), jnp.zeros((), v.dtype)
    system = schur.make_system(kernel, ones, v, *diagonals, zero, more.gauge)
    inverse = schur.inverse_root(diagonals[1]) ** 2
    rhs = system.left * (top - kernel.times(v * inverse * bottom))
    scaled = control.custom_linear_solve(
        lambda x: schur.product(system, x),
        schur.project(system, rhs),
        lambda _, b: _solve(system, b, inner),
        symmetric=True,
    )
    u = system.left * scaled
    return u, inverse * (bottom - v * kernel.transpose_times(u))


def _stiffness(problem: Problem, f: jax.Array, g: jax.Array) -> Stiffness:
    if problem.balanced:
        return BALANCED
    a, b = dual.target_masses(problem, f, g)
    return Stiffness(
        marginal.stiffness(a, problem.rho_a, problem.epsilon),
        marginal.stiffness(b, problem.rho_b, problem.epsilon),
        has_gauge(problem),
    )


@jax.custom_jvp
def attach(problem: Problem, f: jax.Array, g: jax.Array):
    """Return f [n] and g [m] unchanged, with the derivative of the solution.

    The derivative is taken in an arbitrary gauge: apply `dual.with_gauge` after it.
    Changes of a and b with unequal totals are projected on equal ones.
    """
    return f, g


@attach.defjvp
def _attach_jvp(primals, tangents):
    problem = primals[0]
    # The attached potentials, not the raw ones: higher derivatives need it.
    f, g = attach(*primals)

    def surplus(q: Problem):
        rows, columns = dual.marginals(q, f, g)
        a, b = dual.target_masses(q, f, g)
        return rows - a, columns - b

    _, (rows, columns) = jax.jvp(surplus, (problem,), (tangents[0],))
    epsilon = problem.epsilon
    more = _stiffness(problem, f, g)
    right = -epsilon * rows, -epsilon * columns
    return (f, g), _solve_at(problem.formed(), f, g, *right, more)


def _solve_at(formed: Problem, f, g, top, bottom, more: Stiffness):
    """Solve the system of a plan, on its smaller side if it is stored."""
    geometry = formed.geometry
    n, m = formed.shape
    if geometry.streams_rows or (geometry.stored and n > m):
        swapped = Stiffness(more.columns, more.rows, more.gauge)
        v, u = _solve_at(formed.transposed(), g, f, bottom, top, swapped)
        return u, v
    f, g = dual.finite(formed, f, g)
    kernel, v = geometry.plan_kernel(f, g, formed.epsilon)
    inner = solve_stored
    if not geometry.has_kernel:
        inner = implicit_streamed.inner_solve(formed, f, g, more)
    return solve_with(kernel, v, kernel.sums(v), top, bottom, more, inner)


def spectral_gap(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] 1 - sigma^2 of the plan, sigma its second singular value; see `Solution`.

    With penalties: the least eigenvalue of the Newton matrix.
    """
    formed = problem.formed()
    if formed.geometry.streams_rows:
        return spectral_gap(formed.transposed(), g, f)
    more = _stiffness(problem, f, g)
    f, g = dual.finite(formed, f, g)
    kernel, v = formed.geometry.plan_kernel(f, g, formed.epsilon)
    rows, columns = kernel.sums(v)
    diagonals = rows + more.rows, columns + more.columns
    zero = jnp.zeros((), v.dtype)
    ones = jnp.ones_like(rows)
    system = schur.make_system(kernel, ones, v, *diagonals, zero, more.gauge)
    return conditioning.smallest_eigenvalue(system)


@jax.custom_jvp
def optimal_value(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] dual value whose first derivative ignores that f and g move (envelope).

    At an optimum their contribution is zero; leaving it out saves the linear solve
    [D16].
    The derivative is a function of the f and g passed in, so second derivatives
    are right if those are attached.
    """
    return dual.value(problem, f, g)


@optimal_value.defjvp
def _optimal_value_jvp(primals, tangents):
    problem, f, g = primals
    value = optimal_value(problem, f, g)
    partial = jax.jvp(lambda q: dual.value(q, f, g), (problem,), (tangents[0],))[1]
    return value, partial
