"""The matrix of a Newton step where the plan is never stored, and how it is solved.

Conjugate gradients on the exact matrix, a pass for each product, with solves of the
model of `plan_model` in them: 5 to 20 passes where a diagonal needs hundreds.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry import Streamed
from jaxsns.hessian import schur
from jaxsns.linear.conjugate_gradient import CGResult
from jaxsns.numerics import default_shift
from jaxsns.problem.problem import Problem
from jaxsns.streaming import plan_model
from jaxsns.streaming.clusters import ClusterLayout
from jaxsns.streaming.passes import PassResult

PRODUCTS = 200  # passes that a solve may take [D23]
INNER, INNER_STEPS = 1e-3, 400  # of the solves of the model [D23]


class NewtonSystem(NamedTuple):
    """The Schur complement of a plan in sorted order, and that of its model."""

    exact: schur.SchurSystem
    model: schur.SchurSystem


@jax.named_scope("newton_system")
def at_potentials(
    problem: Problem,
    f: jax.Array,
    g: jax.Array,
    seen: PassResult,
    shapes: tuple[ClusterLayout, ClusterLayout],
    stiffness: tuple[ArrayLike, ArrayLike],
    gauge: ArrayLike,
) -> NewtonSystem:
    """System of the plan of sorted, finite f [n] and g [m].

    seen: a pass at f; the model has its marginals, whatever g is. stiffness: what
    penalties add to the diagonals of rows [n] and columns [m]. Looks for the plan's
    largest entries, which costs two passes.
    """
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    kept = min(plan_model.KEPT, *problem.shape)
    pattern = plan_model.find_pattern(geometry, f, g, epsilon, kept)
    near = plan_model.build(
        geometry, f, seen.g, epsilon, pattern,
        seen.rows, seen.columns, seen.flow, shapes,
    )  # fmt: skip
    exact = geometry.kernel(f, g, epsilon)
    columns = exact.transpose_times(jnp.ones_like(seen.rows))
    ones = jnp.ones_like(seen.rows), jnp.ones_like(columns)
    diagonals = seen.rows + stiffness[0], columns + stiffness[1]
    zero = jnp.zeros((), f.dtype)
    shift = jnp.asarray(default_shift(f.dtype), f.dtype)
    return NewtonSystem(
        schur.make_system(exact, *ones, *diagonals, zero, gauge),
        schur.make_system(near, *ones, *diagonals, shift, gauge),
    )


def solve(system: NewtonSystem, rhs: jax.Array, tolerance: ArrayLike) -> CGResult:
    """Solve with the exact matrix for rhs [n] to a relative residual."""
    return schur.solve_nested(
        system.exact, system.model, rhs, tolerance, PRODUCTS, INNER, INNER_STEPS
    )
