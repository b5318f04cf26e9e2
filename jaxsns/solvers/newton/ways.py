"""What a Newton direction is, and what is known on a kernel about how to find one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry.kernel import Kernel
from jaxsns.hessian.mixed_precision import Rough
from jaxsns.hessian.sparse_system import Pattern
from jaxsns.recording.history import StepKind

UNJUDGED, EXACT, SPARSE = range(3)


class Way(NamedTuple):
    """How directions are found on a kernel."""

    kind: jax.Array  # [] int32
    pattern: Pattern
    last: jax.Array  # [] int32 products that the last direction took, 0 if none


class Direction(NamedTuple):
    """Direction in the log scaling x of the rows, and what the model promises."""

    dx: jax.Array  # [n]
    slope: jax.Array  # []
    curvature: jax.Array  # []
    way: Way
    products: jax.Array  # [] int32 with the exact matrix
    sparse_products: jax.Array  # [] int32
    kind: jax.Array  # [] int32, a StepKind
    kept: jax.Array  # [] share of the plan's entries in the matrix


class Point(NamedTuple):
    """The plan diag(exp(x)) K diag(exp(y)), its row sums and its error."""

    kernel: Kernel
    u: jax.Array  # [n] exp(x)
    v: jax.Array  # [m] exp(y)
    rows: jax.Array  # [n]
    columns: jax.Array  # [m]
    row_stiffness: jax.Array  # [n] what penalties add to the diagonal, 0 if balanced
    column_stiffness: jax.Array  # [m]
    gauge: jax.Array  # [] bool: whether potentials have one
    error: jax.Array  # [] relative L1
    left: ArrayLike = 0.0  # [] of the error by the Newton step before; 0 if unknown
    rough: Rough | None = None  # in float32, where that pays


class Did(NamedTuple):
    """What was done for a direction, for the counts and the record."""

    products: jax.Array
    sparse_products: jax.Array
    kind: jax.Array
    kept: jax.Array


def kind_of(kind: StepKind) -> jax.Array:
    """Step kind as it is carried: [] int32."""
    return jnp.asarray(kind, jnp.int32)


def as_direction(system, root, rhs, u, way: Way, did: Did) -> Direction:
    """Direction of a solution u [n] of the system, with what the model promises."""
    slope = jnp.vdot(rhs, u)
    curvature = slope - system.shift * jnp.vdot(u, u)
    return Direction(root * u, slope, curvature, way, *did)
