"""Derivative of what is carried: of the fixed point C = C(S(C, theta), theta).

S is the plan of the linear problem, theta all that the solution depends on. The
tangent solves (I - T') dC = T_theta dtheta, T' the derivative of C(S(.)): to stop the
gradient at C(P) would leave I - T' out. A product with T' is one derivative of the
linear solve and one linearisation. GMRES solves the system, since T' is not symmetric.
Source: implicit function theorem.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsns import control
from jaxsns.implicit import potentials as implicit
from jaxsns.linear.gmres import gmres
from jaxsns.numerics import machine_epsilon, unit_of
from jaxsns.outer.form import Form, Terms
from jaxsns.outer.iteration import State
from jaxsns.problem import gauge
from jaxsns.problem.problem import Problem
from jaxsns.solution import Solution

RESTART = 30  # directions that are kept, each of the size of what is carried [D41]
# [D41]
RESTARTS = 10


def _solve(product: Any, rhs: jax.Array) -> jax.Array:
    """Solve for a flat rhs; NaN where it fails."""
    unit = machine_epsilon(rhs.dtype)
    scale = jnp.max(jnp.abs(rhs))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    b = rhs / scale
    restart = min(RESTART, rhs.shape[0])
    x, left = gmres(product, b, tolerance=unit**0.7, restart=restart, restarts=RESTARTS)
    return jnp.where(left <= unit**0.5 * jnp.linalg.norm(b), x, jnp.nan) * scale


def potentials(problem: Problem, f: jax.Array, g: jax.Array):
    """Potentials as they are, with the derivative of the linear problem's solution."""
    return gauge.with_gauge(problem, *implicit.attach(problem, f, g))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(form: Form, terms: Terms, carried: Any, f: jax.Array, g: jax.Array) -> Any:
    """Return what is carried unchanged, with the derivative of the fixed point.

    f, g: potentials of the linear problem, at the tolerance of its solve.
    """
    return carried


@attach.defjvp
def _attach_jvp(form, primals, tangents):
    terms, carried, f, g = primals
    carried = attach(form, *primals)
    flat, unravel = ravel_pytree(carried)

    def image(terms, flat):
        at = unravel(flat)
        new = form.evaluate(terms, at, *potentials(form.problem(terms, at), f, g)).next
        return ravel_pytree(new)[0]

    # Apart, so that what does not move is known to have no tangent: JAX 0.12 cannot
    # transpose an `optimization_barrier` of which an operand has a tangent of zeros.
    _, direct = jax.jvp(lambda q: image(q, flat), (terms,), (tangents[0],))
    _, along = jax.linearize(lambda v: image(terms, v), flat)
    size = ravel_pytree(jax.tree.map(_size, carried))[0]
    moved = control.custom_linear_solve(
        lambda v: v - along(v * size) / size,
        direct / size,
        _solve,
        transpose_solve=_solve,
    )
    return carried, unravel(moved * size)


def _size(values: jax.Array) -> jax.Array:
    """Largest absolute value in place of each, 1 if all are 0; no derivative.

    What is carried may be costs and a mass: errors of one norm would hide either.
    """
    return jnp.broadcast_to(unit_of(values), values.shape)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def optimal_value(
    form: Form, terms: Terms, carried: Any, f: jax.Array, g: jax.Array, value: jax.Array
) -> jax.Array:
    """[] the value as it is; its first derivative ignores that the plan moves."""
    return value


@optimal_value.defjvp
def _optimal_value_jvp(form, primals, tangents):
    # The envelope theorem. The value itself is not computed anew.
    terms, carried, f, g, _ = primals
    partial = lambda q: form.evaluate(q, carried, f, g).value
    return optimal_value(form, *primals), jax.jvp(partial, (terms,), (tangents[0],))[1]


def attached(
    form: Form, terms: Terms, end: State, tolerance: jax.Array, method: str
) -> tuple[Solution, Any, jax.Array]:
    """(solution of the last linear problem, what is carried, [] value), differentiable.

    tolerance: [] marginal error that was asked for.
    """
    carried = attach(form, terms, end.carried, end.f, end.g)
    problem = form.problem(terms, carried)
    f, g = potentials(problem, end.f, end.g)
    value = optimal_value(form, terms, carried, f, g, end.value)
    ended = end.error, tolerance, end.inner, end.counts
    return Solution(problem, f, g, *ended, method), carried, value
