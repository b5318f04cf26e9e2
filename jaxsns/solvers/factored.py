"""Newton directions with a factor of the exact matrix.

A float32 factor, found at some step, is the preconditioner of conjugate gradients on
the exact matrix at this and further steps, and is found again where it has become old.
It is right in nearly every mode of the matrix (`linear.graded`): a step with it takes
one product if it is new and 5 to 10 if it is old, on a plan that nearly splits into
groups of rows, where a step with the diagonal may take hundreds (docs/decisions.md). If
not even the step of a new one is good there is no other: conjugate gradients go on
without.
"""

import jax
import jax.numpy as jnp

from jaxsns import newton_system
from jaxsns.history import StepKind
from jaxsns.linear.graded import Factor
from jaxsns.solvers import direction
from jaxsns.solvers.ways import (
    FACTORED,
    FRESH,
    NEVER,
    WANTED,
    Did,
    Direction,
    Point,
    Way,
    as_direction,
    kind_of,
)

OLD = 8  # products of a direction, above which the next one has a new factor
FEW = 10  # products, after which a direction is taken as it is


@jax.named_scope("factor")
def factor_at(
    point: Point, residual: jax.Array, shift: jax.Array, target: jax.Array
) -> Factor:
    """Float32 factor of the Newton matrix here."""
    system = direction.equations(point, residual, shift, target)[0]
    return newton_system.factorise(system)


def with_factor(way: Way) -> Way:
    """What a way becomes when the factor that it wants has been found."""
    return way._replace(kind=jnp.full_like(way.kind, FRESH))


def refused(kind: jax.Array) -> jax.Array:
    """[] kind to go on with where the step was not good."""
    return jnp.where(kind == FRESH, NEVER, WANTED).astype(jnp.int32)


def find(
    point: Point,
    residual: jax.Array,
    shift: jax.Array,
    target: jax.Array,
    way: Way,
    factor: Factor,
) -> Direction:
    """Newton direction for a residual a - rows [n]; `target`: the error aimed at.

    The way that it returns is WANTED where the factor has become old. What was found is
    used all the same.
    """
    system, rhs, root, accuracy = direction.equations(point, residual, shift, target)
    end = newton_system.solve_factored(system, factor, rhs, accuracy, FEW)
    kind = jnp.where(end.converged & (end.steps <= OLD), FACTORED, WANTED)
    none, whole = jnp.zeros_like(end.steps), jnp.ones_like(point.error)
    did = Did(end.steps, none, kind_of(StepKind.CHOLESKY), whole)
    way = way._replace(kind=kind.astype(jnp.int32), last=end.steps)
    return as_direction(system, root, rhs, end.x, way, did)
