"""The matrix of a Newton step, which is also the matrix of the derivative.

Of the dual's Hessian [[R, P], [P^T, S]] (R, S: row and column sums) the Schur
complement on the rows is kept, scaled to a unit diagonal of its first part:

    A = (1 + shift) I - Q Q^T + w w^T,   Q = R^-1/2 P S^-1/2,   w = sqrt(rows) / norm

w spans the gauge; pinning it makes A positive definite on a connected plan. Rows
without mass become rows of the identity. Eigenvalues lie in (0, 1 + shift].
Penalised marginals add to R and S (R / tau and S / tau at a solution); there is no
gauge then, A is positive definite by itself, and w is 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.geometry.kernel import DenseKernel, Kernel
from jaxsns.linear import cholesky
from jaxsns.linear.conjugate_gradient import CGResult, conjugate_gradient
from jaxsns.numerics import default_shift, matmul, vdot

STRIPES = 4  # in which a matrix is built before it is factorised [D21]
WHOLE = 128  # rows, up to which it is built at once: less to compile [D21]


class SchurSystem(NamedTuple):
    """A above, as a kernel and the scalings around it: Q = diag(left) K diag(right)."""

    kernel: Kernel
    left: jax.Array  # [n]
    right: jax.Array  # [m]
    pin: jax.Array  # [n] w
    unit: jax.Array  # [] or [n] diagonal before Q Q^T is taken off: 1 if K is whole
    shift: jax.Array  # []


def inverse_root(sums: jax.Array) -> jax.Array:
    """1 / sqrt(sums), 0 where the sum is 0."""
    positive = sums > 0
    return jnp.where(positive, 1 / jnp.sqrt(jnp.where(positive, sums, 1)), 0)


def make_system(
    kernel: Kernel,
    u: jax.Array,
    v: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    shift: jax.Array,
    gauge: ArrayLike = True,
) -> SchurSystem:
    """System of the plan diag(u) K diag(v) with R and S given as rows and columns."""
    positive = rows > 0
    roots = jnp.where(positive, jnp.sqrt(jnp.where(positive, rows, 1)), 0)
    pin = jnp.where(gauge, roots / jnp.sqrt(jnp.sum(rows)), 0)
    return SchurSystem(
        kernel,
        u * inverse_root(rows),
        v * inverse_root(columns),
        pin,
        jnp.ones_like(shift),
        shift,
    )


def product(system: SchurSystem, vector: jax.Array) -> jax.Array:
    """A times a vector, [n]: two products with the kernel."""
    squares = system.right**2
    outer = system.left * system.kernel.normal(squares, system.left * vector)
    pinned = system.pin * vdot(system.pin, vector)
    return (system.unit + system.shift) * vector - outer + pinned


def project(system: SchurSystem, vector: jax.Array) -> jax.Array:
    """Take the gauge direction out of a vector, [n]."""
    return vector - system.pin * vdot(system.pin, vector)


def diagonal(system: SchurSystem) -> jax.Array:
    """Diagonal of A without w w^T, [n]: one sweep over the kernel; kept off zero.

    Of a row that nearly stands alone it is tiny, and known to a rounding only.
    """
    inner = system.left**2 * system.kernel.squares_times(system.right**2)
    least = 1e-12 if inner.dtype == jnp.float64 else 1e-3
    return jnp.maximum(system.unit + system.shift - inner, least)


def without_gauge(system: SchurSystem) -> SchurSystem:
    """Return A without w w^T: all that a right side without gauge component needs.

    As a preconditioner the diagonal of A must not have it: w_i^2 is some 1 / n, and
    hides that a row nearly stands alone (A_ii 1e-12, say), as hundreds of points in 10
    or more dimensions do at small epsilon. Directions of 10-D points, n = 1000, then
    take 514 products where they take 28 without [D07].
    """
    return system._replace(pin=jnp.zeros_like(system.pin))


@jax.named_scope("conjugate_gradients")
def solve_cg(
    system: SchurSystem, rhs: jax.Array, tolerance: ArrayLike, max_steps: ArrayLike
) -> CGResult:
    """Solve by conjugate gradients with the diagonal as preconditioner; rhs without w.

    The diagonal matters: where a row of the plan has nearly all its mass in one
    entry, 1 - Q_ii^2 is small, and a random assignment problem at epsilon = 1/1200
    takes 58 products in all instead of 372.
    """
    inverse = 1 / diagonal(system)
    free = without_gauge(system)
    end = conjugate_gradient(
        lambda v: product(free, v), rhs, lambda v: inverse * v, tolerance, max_steps
    )
    return end._replace(x=project(system, end.x))


@jax.named_scope("nested_conjugate_gradients")
def solve_nested(
    system: SchurSystem,
    near: SchurSystem,
    rhs: jax.Array,
    tolerance: ArrayLike,
    max_steps: ArrayLike,
    inner_tolerance: ArrayLike,
    inner_steps: ArrayLike,
) -> CGResult:
    """Solve by conjugate gradients with solves of a nearby, cheaper system in them.

    rhs [n] has no gauge component. Products with a large x leave some; it goes.
    """

    def precondition(vector: jax.Array) -> jax.Array:
        return solve_cg(near, vector, inner_tolerance, inner_steps).x

    end = conjugate_gradient(
        lambda v: product(system, v), rhs, precondition, tolerance, max_steps
    )
    return end._replace(x=project(system, end.x))


def _factor(system: SchurSystem) -> jax.Array:
    """[n, n] factor of A in the dtype of the solve, in the lower triangle."""
    assert isinstance(system.kernel, DenseKernel)
    k, pin = system.kernel.matrix, system.pin
    left, right = system.left, system.right
    unit = system.unit + system.shift + default_shift(k.dtype)
    n = k.shape[0]
    if n <= WHOLE:
        q = left[:, None] * k * right[None, :]
        matrix = jnp.diag(jnp.full_like(pin, unit)) - matmul(q, q.T)
        return cholesky.factorise(matrix + pin[:, None] * pin[None, :])

    # One triangle, block by block in place: 5/8 of the products.
    height = -(-n // STRIPES)
    first, second = np.triu_indices(STRIPES)

    def block(i: jax.Array, matrix: jax.Array) -> jax.Array:
        # The last ones may overlap.
        row = jnp.minimum(jnp.asarray(first)[i] * height, n - height)
        column = jnp.minimum(jnp.asarray(second)[i] * height, n - height)
        rows, columns = row + jnp.arange(height), column + jnp.arange(height)
        part = jax.lax.dynamic_slice_in_dim(k, row, height)
        other = jax.lax.dynamic_slice_in_dim(k, column, height)
        part = left[rows, None] * part * right[None, :] ** 2
        part = matmul(part, other.T) * left[None, columns]
        diagonal = jnp.where(rows[:, None] == columns[None, :], unit, 0)
        part = diagonal - part + pin[rows, None] * pin[None, columns]
        return jax.lax.dynamic_update_slice(matrix, part, (row, column))

    upper = control.fori_loop(0, first.size, block, jnp.zeros((n, n), k.dtype))
    return cholesky.factorise(upper.T)


@jax.named_scope("cholesky")
def solve_cholesky(
    system: SchurSystem, rhs: jax.Array, refinements: int = 0
) -> jax.Array:
    """Solve by Cholesky with the tiny relative shift that split plans need, [n].

    O(n^2 m + n^3 / 3) time, two more [n, n] arrays. NaN if the factorisation fails.
    """
    factor = _factor(system)
    return cholesky.refined_solve(
        factor, lambda v: product(system, v), rhs, refinements
    )
