"""The linear system of the derivative where the plan is never stored."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.hessian import schur
from jaxsns.linear.conjugate_gradient import conjugate_gradient
from jaxsns.numerics import finite_minus_inf, machine_epsilon
from jaxsns.problem.problem import Problem
from jaxsns.streaming import newton_system
from jaxsns.streaming.arrangement import sort_into_clusters
from jaxsns.streaming.passes import semidual_pass

PLAIN_PRODUCTS = 1000  # passes that conjugate gradients may take then, at most [D23]


def _finished(
    system: schur.SchurSystem, rhs: jax.Array, x: jax.Array, tolerance: float
) -> jax.Array:
    """[n] solution from x on, with the diagonal as preconditioner."""
    missed = lambda x: schur.project(system, rhs - schur.product(system, x))
    residual = missed(x)
    size = jnp.linalg.norm(residual)
    share = tolerance * jnp.linalg.norm(rhs) / jnp.where(size > 0, size, 1)
    inverse = 1 / schur.diagonal(system)
    # With the gauge pinned: rounding of the sums can make its eigenvalue negative.
    end = conjugate_gradient(
        lambda v: schur.product(system, v),
        residual,
        lambda v: inverse * v,
        share,
        PLAIN_PRODUCTS,
    )
    more = x + schur.project(system, end.x)
    left = jnp.linalg.norm(missed(more))
    return jnp.where(left < size, more, x)


def inner_solve(problem: Problem, f: jax.Array, g: jax.Array, more: Any):
    """Function of a system with the plan of f and g, and a rhs [n], to the solution.

    more: `implicit.Stiffness`.
    """

    def sort(order, values: ArrayLike):
        values = jnp.asarray(values)
        return values if values.ndim == 0 else order.sort(values)

    def solve(system: schur.SchurSystem, rhs: jax.Array) -> jax.Array:
        arranged = sort_into_clusters(problem)
        inner = arranged.problem
        low = finite_minus_inf(problem.dtype)
        sorted_f = jnp.where(inner.a > 0, arranged.rows.sort(f), low)
        sorted_g = jnp.where(inner.b > 0, arranged.columns.sort(g), low)
        seen = semidual_pass(inner, sorted_f, arranged.shapes)
        # The pass has columns that fit f; the rows of the plan are those of f and g.
        plan = inner.geometry.kernel(sorted_f, sorted_g, inner.epsilon)
        seen = seen._replace(rows=plan.times(jnp.ones_like(sorted_g)))
        stiffness = sort(arranged.rows, more.rows), sort(arranged.columns, more.columns)
        sorted_system = newton_system.at_potentials(
            inner, sorted_f, sorted_g, seen, arranged.shapes, stiffness, more.gauge
        )
        b = jnp.where(arranged.rows.real, arranged.rows.sort(rhs), 0)
        tolerance = machine_epsilon(rhs.dtype) ** 0.65
        end = newton_system.solve(sorted_system, b, tolerance)
        x = arranged.rows.restore(end.x)
        # Rounding can leave the model indefinite; then the diagonal has to do. It works
        # on the system that is asked for: sorted points round to a slightly other one.
        return _finished(system, rhs, x, tolerance)

    return solve
