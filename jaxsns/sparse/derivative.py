"""Derivatives of the potentials: the system of a Newton step, without a shift.

The support does not move under small changes, so the plan is a smooth function of all
inputs there: [[R, S], [S^T, T]] (df; dg) = -gamma (d rows; d columns) at fixed f and g,
R and T with what penalties add. At inputs where an entry enters or leaves, derivatives
are one-sided, and this is one of them.
"""

import jax

from jaxsns.implicit.potentials import BALANCED, Stiffness, solve_hessian
from jaxsns.problem import dual as masses
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.sparse import dual


def _stiffness(problem: Problem, f: jax.Array, g: jax.Array) -> Stiffness:
    if problem.balanced:
        return BALANCED
    a, b = masses.target_masses(problem, f, g)
    return Stiffness(
        marginal.stiffness(a, problem.rho_a, problem.epsilon),
        marginal.stiffness(b, problem.rho_b, problem.epsilon),
        has_gauge(problem),
    )


@jax.custom_jvp
def attach(problem: Problem, f: jax.Array, g: jax.Array):
    """Return f [n] and g [m] unchanged, with the derivative of the solution.

    In an arbitrary gauge: apply `gauge.with_gauge` after it.
    """
    return f, g


@attach.defjvp
def _attach_jvp(primals, tangents):
    problem = primals[0]
    f, g = attach(*primals)

    def surplus(q: Problem):
        rows, columns = dual.marginals(q, f, g)
        a, b = masses.target_masses(q, f, g)
        return rows - a, columns - b

    _, (rows, columns) = jax.jvp(surplus, (problem,), (tangents[0],))
    right = -problem.epsilon * rows, -problem.epsilon * columns
    on = dual.support(problem, f, g)
    return (f, g), solve_hessian(on, *right, _stiffness(problem, f, g))


@jax.custom_jvp
def optimal_value(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] dual value; its first derivative leaves out that f and g move (envelope)."""
    return dual.value(problem, f, g)


@optimal_value.defjvp
def _optimal_value_jvp(primals, tangents):
    problem, f, g = primals
    value = optimal_value(problem, f, g)
    return value, jax.jvp(lambda q: dual.value(q, f, g), (problem,), (tangents[0],))[1]
