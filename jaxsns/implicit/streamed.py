"""The linear system of the derivative where the plan is never stored.

Conjugate gradients on the exact matrix, a pass for each product, with solves of the
model of `plan_model` in them: 5 to 20 passes where a diagonal needs hundreds.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry import Streamed
from jaxsns.hessian import schur as schur
from jaxsns.numerics import default_shift, finite_minus_inf, machine_epsilon
from jaxsns.problem.problem import Problem
from jaxsns.streaming import plan_model
from jaxsns.streaming.arrangement import ClusteredProblem, sort_into_clusters
from jaxsns.streaming.passes import semidual_pass

PRODUCTS = 200  # passes that a solve may take [D23]
INNER, INNER_STEPS = 0.03, 400  # of the solves of the model [D23]


def inner_solve(problem: Problem, f: jax.Array, g: jax.Array, more: Any):
    """Function of a system with the plan of f and g, and a rhs [n], to the solution.

    more: `implicit.Stiffness`.
    """

    def solve(system: schur.SchurSystem, rhs: jax.Array) -> jax.Array:
        arranged = sort_into_clusters(problem)
        inner = arranged.problem
        geometry = inner.geometry
        assert isinstance(geometry, Streamed)
        low = finite_minus_inf(problem.dtype)
        sorted_f = jnp.where(inner.a > 0, arranged.rows.sort(f), low)
        sorted_g = jnp.where(inner.b > 0, arranged.columns.sort(g), low)
        epsilon = problem.epsilon
        seen = semidual_pass(inner, sorted_f, arranged.shapes)
        kept = min(plan_model.KEPT, *inner.shape)
        pattern = plan_model.find_pattern(geometry, sorted_f, sorted_g, epsilon, kept)
        near = plan_model.build(
            geometry, sorted_f, seen.g, epsilon, pattern,
            seen.rows, seen.columns, seen.flow, arranged.shapes,
        )  # fmt: skip
        exact = geometry.kernel(sorted_f, sorted_g, epsilon)
        columns = exact.transpose_times(jnp.ones_like(seen.rows))
        sums = seen.rows, columns
        system, model = _systems(arranged, exact, near, sums, more)
        unit = machine_epsilon(rhs.dtype)
        b = jnp.where(arranged.rows.real, arranged.rows.sort(rhs), 0)
        end = schur.solve_nested(
            system, model, b, unit**0.65, PRODUCTS, INNER, INNER_STEPS
        )
        return arranged.rows.restore(end.x)

    return solve


def _systems(arranged: ClusteredProblem, exact, near, sums, more):
    """The exact system and its model, in sorted order."""

    def sort(order, values: ArrayLike):
        values = jnp.asarray(values)
        return values if values.ndim == 0 else order.sort(values)

    rows = sums[0] + sort(arranged.rows, more.rows)
    columns = sums[1] + sort(arranged.columns, more.columns)
    ones = jnp.ones_like(rows), jnp.ones_like(columns)
    zero = jnp.zeros((), rows.dtype)
    shift = jnp.asarray(default_shift(rows.dtype), rows.dtype)
    diagonals = rows, columns
    return (
        schur.make_system(exact, *ones, *diagonals, zero, more.gauge),
        schur.make_system(near, *ones, *diagonals, shift, more.gauge),
    )
