"""The linear problem of a plan under a penalty, and what a solution of it shows.

What is carried is D [n, m], the gradient of the penalty at a plan; the linear problem
has the cost C + D.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.geometry.learnable import OfPlan
from jaxsns.numerics import is_forbidden
from jaxsns.outer.form import Evaluation
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Terms:
    """All that the solution depends on.

    Attributes:
      masses: the problem without the penalty, its costs a matrix.
      penalty: [n, m] -> [].
    """

    masses: Problem
    penalty: OfPlan


def problem(terms: Terms, carried: jax.Array) -> Problem:
    """Return the linear problem."""
    given = terms.masses
    cost = given.geometry.dense().cost + carried
    return dataclasses.replace(given, geometry=Dense(cost))


def evaluate(terms: Terms, carried: jax.Array, f: jax.Array, g: jax.Array):
    """What potentials of the linear problem of `carried` show."""
    linear = problem(terms, carried)
    plan = dual.plan(linear, f, g)
    penalty, gradient = jax.value_and_grad(terms.penalty)(plan)
    # As the dual of a linear problem: exact to second order in the marginal error.
    inner = dual.linear_part(linear, f, g) - linear.epsilon * jnp.sum(plan)
    value = inner - jnp.sum(carried * plan) + penalty
    cost = linear.geometry.dense().cost
    cost = jnp.where(is_forbidden(cost), 0, cost)
    size = jnp.sum(jnp.abs(cost) * plan) + jnp.abs(inner) + jnp.abs(penalty)
    return Evaluation(gradient, plan, value, size)


def change(terms: Terms, old: jax.Array, new: jax.Array) -> jax.Array:
    """[] L1 difference of two plans, relative to the mass."""
    mass = jnp.sum(new)
    return jnp.sum(jnp.abs(new - old)) / jnp.where(mass > 0, mass, 1)


def no_plan(terms: Terms, carried: jax.Array) -> jax.Array:
    """Stand-in for a plan before there is one."""
    return jnp.zeros_like(carried)


def weights(terms: Terms, plan: jax.Array) -> jax.Array:
    """[n m] weights of the norm in which steps are extrapolated."""
    # The Hessian of the linear problem in its cost is that of the plan's entries.
    return plan.ravel()


def sensible(terms: Terms, carried: jax.Array, plain: jax.Array) -> jax.Array:
    """Extrapolated gradients are of use as they are."""
    return carried
