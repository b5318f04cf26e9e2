"""The linear system of the derivative where the plan is never stored."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.hessian import schur
from jaxsns.numerics import finite_minus_inf, machine_epsilon
from jaxsns.problem.problem import Problem
from jaxsns.streaming import newton_system
from jaxsns.streaming.arrangement import sort_into_clusters
from jaxsns.streaming.passes import semidual_pass


def inner_solve(problem: Problem, f: jax.Array, g: jax.Array, more: Any):
    """Function of a system with the plan of f and g, and a rhs [n], to the solution.

    more: `implicit.Stiffness`.
    """

    def sort(order, values: ArrayLike):
        values = jnp.asarray(values)
        return values if values.ndim == 0 else order.sort(values)

    def solve(system: schur.SchurSystem, rhs: jax.Array) -> jax.Array:
        del system  # the same in the order of the points
        arranged = sort_into_clusters(problem)
        inner = arranged.problem
        low = finite_minus_inf(problem.dtype)
        sorted_f = jnp.where(inner.a > 0, arranged.rows.sort(f), low)
        sorted_g = jnp.where(inner.b > 0, arranged.columns.sort(g), low)
        seen = semidual_pass(inner, sorted_f, arranged.shapes)
        stiffness = sort(arranged.rows, more.rows), sort(arranged.columns, more.columns)
        sorted_system = newton_system.at_potentials(
            inner, sorted_f, sorted_g, seen, arranged.shapes, stiffness, more.gauge
        )
        b = jnp.where(arranged.rows.real, arranged.rows.sort(rhs), 0)
        end = newton_system.solve(sorted_system, b, machine_epsilon(rhs.dtype) ** 0.65)
        return arranged.rows.restore(end.x)

    return solve
