"""Which form a quadratic problem is solved in: with arrays [n, m], or streamed."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsns.geometry import PointCloud, memory
from jaxsns.outer.form import Evaluation
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.quadratic import dense_form, streamed_form
from jaxsns.quadratic.dense_form import Carried
from jaxsns.quadratic.spaces import Matrix, Points
from jaxsns.quadratic.terms import Terms, first_part, linearised, second_part


def streamed(terms: Terms) -> bool:
    """Whether no array [n, m] is formed; known when compiled."""
    spaces = terms.x, terms.y
    if any(isinstance(space, Matrix) for space in spaces) or not terms.balanced:
        return False
    cloud = terms.masses.geometry
    if isinstance(cloud, PointCloud) and cloud.cost != "sqeuclidean":
        return False
    asked = [s.streamed for s in spaces if isinstance(s, Points)]
    if isinstance(cloud, PointCloud):
        asked.append(cloud.streamed)
    elif not terms.pure:
        return False
    if True in asked or False in asked:
        return True in asked
    return not memory.fits(*terms.masses.shape, terms.masses.dtype)


def problem(terms: Terms, carried: Any) -> Problem:
    """Return the linear problem of what is carried."""
    form = streamed_form if streamed(terms) else dense_form
    return form.problem(terms, carried)


def evaluate(terms: Terms, carried: Any, f: jax.Array, g: jax.Array) -> Evaluation:
    """What potentials of the linear problem show."""
    form = streamed_form if streamed(terms) else dense_form
    return form.evaluate(terms, carried, f, g)


def change(terms: Terms, old: Any, new: Any) -> jax.Array:
    """[] L1 difference of two plans, relative to the mass."""
    if streamed(terms):
        return streamed_form.change(terms, old, new)
    return dense_form.change(old, new)


def no_plan(terms: Terms, carried: Any) -> Any:
    """Stand-in for a plan before there is one."""
    n, m = terms.masses.shape
    if streamed(terms):
        dtype = terms.masses.dtype
        return carried, jnp.zeros((n,), dtype), jnp.zeros((m,), dtype)
    return jnp.zeros((n, m), terms.masses.dtype)


def sizes(terms: Terms) -> tuple[int, int]:
    """Rows and columns of the linear problem, virtual atoms included."""
    n, m = terms.masses.shape
    more = 0 if terms.share is None else 1
    return n + more, m + more


def potentials(terms: Terms, carried: Any, f: jax.Array, g: jax.Array):
    """Potentials of the linearised cost, ([n], [m]), of those of the linear problem."""
    if streamed(terms):
        return streamed_form.potentials(terms, carried, f, g)
    return dense_form.potentials(terms, carried, f, g)


def weights(terms: Terms, plan: Any) -> jax.Array:
    """[size of what is carried] weights of the norm in which steps are extrapolated."""
    if streamed(terms):
        return jnp.ones_like(plan[0]).ravel()
    # The Hessian of the linear problem in its cost is that of the plan's entries.
    nothing = dense_form.nothing(terms)
    return ravel_pytree(Carried(plan, jnp.zeros((), plan.dtype), *nothing))[0]


def sensible(terms: Terms, carried: Any, plain: Any) -> Any:
    """Extrapolated costs with the mass of a plain step, which is positive."""
    return carried if streamed(terms) else carried._replace(mass=plain.mass)


def quadratic_cost(terms: Terms, own: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] Q(P) of the plan of potentials of a linear problem."""
    if streamed(terms):
        given = terms.masses
        p, q = first_part(terms, given.a), second_part(terms, given.b)
        constant = jnp.sum(p * given.a) + jnp.sum(q * given.b)
        return constant - 2 * streamed_form.products(terms, own, f, g).own
    plan = dual.plan(own, f, g)
    plan = plan if terms.share is None else plan[:-1, :-1]
    rows, columns = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    return jnp.sum(linearised(terms, plan, rows, columns) * plan) / 2
