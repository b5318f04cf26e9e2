"""Newton directions with a factor of the exact matrix.

- A float32 factor, found at some step, is the preconditioner of conjugate gradients
  on the exact matrix at this and further steps;
- it is found again where it has become too old to do;
- where a new one does not do either, further directions are DIRECT: each has a Cholesky
  factor of its own in the dtype of the solve.

A step with CG on the diagonal takes 30 to 600 products on a plan that nearly splits
into blocks, with a float32 factor 4 to 20 (docs/decisions.md).
"""

import jax
import jax.numpy as jnp

from jaxsns import newton_system
from jaxsns.history import StepKind
from jaxsns.solvers import direction
from jaxsns.solvers.direction import (
    DIRECT,
    FACTORED,
    FRESH,
    WANTED,
    Did,
    Direction,
    Point,
    Way,
)

OLD = 6
FEW = 20  # products with a factor, above which another one costs less


@jax.named_scope("factor")
def factor_at(
    point: Point, residual: jax.Array, shift: jax.Array, target: jax.Array
) -> jax.Array:
    """[n * n] float32 factor of the Newton matrix here, its columns one by one.

    Flat, so that XLA has no order to choose: it copied the matrix into another one.
    """
    system = direction.equations(point, residual, shift, target)[0]
    return newton_system.factorise(system)


def with_factor(way: Way) -> Way:
    """What a way becomes when the factor that it wants has been found."""
    return way._replace(kind=jnp.full_like(way.kind, FRESH))


def find(
    point: Point,
    residual: jax.Array,
    shift: jax.Array,
    target: jax.Array,
    way: Way,
    factor: jax.Array,
) -> Direction:
    """Newton direction for a residual a - rows [n]; `target`: the error aimed at.

    The way that it returns is WANTED where the factor has become too old, and DIRECT
    where a new one did not do. What was found is used all the same.
    """
    system, rhs, root, accuracy = direction.equations(point, residual, shift, target)
    n = rhs.shape[0]
    lower = factor.reshape(n, n).T
    end = newton_system.solve_factored(system, lower, rhs, accuracy, FEW)
    kind = jnp.where(end.converged, FACTORED, worse(way.kind))
    kind = jnp.where((kind == FACTORED) & (end.steps > OLD), WANTED, kind)
    none, whole = jnp.zeros_like(end.steps), jnp.ones_like(point.error)
    did = Did(end.steps, none, direction.kind_of(StepKind.CHOLESKY), whole)
    way = way._replace(kind=kind.astype(jnp.int32), last=end.steps)
    return direction.as_direction(system, root, rhs, end.x, way, did)


def worse(kind: jax.Array) -> jax.Array:
    """[] kind to go on with where the factor was of no use: a new one, or none."""
    return jnp.where(kind == FACTORED, WANTED, DIRECT).astype(jnp.int32)
