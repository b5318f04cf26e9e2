"""A Newton direction, by the cheapest way that does.

- conjugate gradients on the exact matrix;
- Cholesky's factor, of small matrices only: of all where they are tiny, else from when
  conjugate gradients were slow on the kernel;
- the sparse matrix of the largest entries (`sparse_direction`), where a matrix is
  large, many products would be needed and the plan is sparse.

What a step finds out holds for the next ones on the same kernel.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry.kernel import Kernel
from jaxsns.hessian import mixed_precision, sparse_system
from jaxsns.hessian import schur as schur
from jaxsns.hessian.schur import SchurSystem
from jaxsns.linear.conjugate_gradient import CGResult
from jaxsns.numerics import default_shift
from jaxsns.recording.history import StepKind
from jaxsns.solvers.newton import sparse_direction
from jaxsns.solvers.newton.ways import (
    EXACT,
    SPARSE,
    UNJUDGED,
    Did,
    Direction,
    Point,
    Way,
    as_direction,
    kind_of,
)

LINEAR_SOLVERS = ("auto", "cg", "sparse", "cholesky")
# Rows: up to the first always by Cholesky's factor; up to the second by one if CG is
# slow; above the third sparse plans are looked for then.
ALWAYS_CHOLESKY, SMALL, LARGE = 32, 128, 8192
MOST_STEPS = 10_000  # of conjugate gradients
MANY_PRODUCTS = 500  # and 2 a row: most for a direction
SMALL_PRODUCTS = 30  # above which a factor of a small matrix costs less
MOST_GROWTH = 6.0  # that is believed, of products from one direction to the next
FORCING = 0.6  # power of the error to which a direction is solved
# No finer than a share of a power of what the last step left of the error, nor coarser
# than a power of the error.
SHARE, POWER, COARSEST = 0.1, 1.5, 0.35
LAST = 0.2  # of the target: error that the last direction aims at
PROBE = 40  # exact products after which sparsity is looked at: what that costs


def permitted(solver: str, kernel: Kernel) -> str:
    """Return the linear solver for a kernel: CG where its entries are not at hand."""
    if kernel.factorisable or solver == "cg":
        return solver
    if solver != "auto":
        raise ValueError(
            f"linear_solver {solver!r} needs the entries of the plan, which this "
            "geometry never forms; use 'auto' or 'cg', or geometry.dense()"
        )
    return "cg"


def unjudged(solver: str, n: int, m: int, dtype: jnp.dtype) -> Way:
    """Nothing known yet; empty lists where sparsity is never looked at."""
    kind = jnp.asarray(UNJUDGED, jnp.int32)
    rows, columns = (n, m) if may_be_sparse(solver, n) else (0, 0)
    lists = sparse_system.nothing(rows, columns, dtype)
    return Way(kind, lists, jnp.zeros_like(kind))


def may_be_sparse(solver: str, n: int) -> bool:
    """Whether the largest entries may be looked for."""
    return solver == "sparse" or (solver == "auto" and n > LARGE)


def system_of(point: Point, shift: ArrayLike = 0.0) -> SchurSystem:
    """System of directions at a point.

    A least shift is always there: without it rounding tells the sign of curvature
    where a plan splits.
    """
    dtype = point.error.dtype
    return schur.make_system(
        point.kernel,
        point.u,
        point.v,
        point.rows + point.row_stiffness,
        point.columns + point.column_stiffness,
        jnp.maximum(jnp.asarray(shift, dtype), default_shift(dtype)),
        point.gauge,
    )


def equations(point: Point, residual: jax.Array, shift: jax.Array, target: jax.Array):
    """System of a direction, its right side [n], scaling [n] and accuracy [].

    Where the last step left much of the error, the model's own error is what the next
    one will leave too, as a rule, and an accurate direction of no use (Eisenstat and
    Walker, SIAM J. Sci. Comput. 17 (1996), choice 2). If it was the direction, which is
    not asked, a power of the error still bounds the next one.

    The L1 error that a residual of the system leaves is at most its 2-norm, over the
    root of the mass: compared with that, not with the error now, since the residual
    may be in a few rows now and in all of them then.
    """
    system = system_of(point, shift)
    root = schur.inverse_root(point.rows + point.row_stiffness)
    rhs = schur.project(system, root * residual)
    finest = 1e-6 if rhs.dtype == jnp.float64 else 1e-3
    last = LAST * target * jnp.sqrt(jnp.sum(point.rows)) / jnp.linalg.norm(rhs)
    error = point.error
    left = jnp.asarray(point.left, error.dtype)
    left = jnp.where(left <= 1, left, 1)  # or NaN
    forcing = jnp.clip(SHARE * left**POWER, error**FORCING, error**COARSEST)
    accuracy = jnp.maximum(forcing, last)
    return system, rhs, root, jnp.clip(accuracy, finest, 0.1)


def _conjugate_gradients(
    system: SchurSystem, point: Point, rhs: jax.Array, accuracy, budget: jax.Array
) -> CGResult:
    if point.rough is None:
        return schur.solve_cg(system, rhs, accuracy, budget)
    return mixed_precision.solve(system, point.rough, rhs, accuracy, budget)


def find(
    solver: str,
    point: Point,
    residual: jax.Array,
    shift: jax.Array,
    target: jax.Array,
    way: Way,
) -> Direction:
    """Newton direction for a residual a - rows [n]; `target`: the error aimed at."""
    system, rhs, root, accuracy = equations(point, residual, shift, target)
    n = rhs.shape[0]
    many = min(MANY_PRODUCTS + 2 * n, MOST_STEPS)
    none = jnp.asarray(0, jnp.int32)
    whole = jnp.ones_like(point.error)
    if solver == "cholesky" or (solver == "auto" and n <= ALWAYS_CHOLESKY):
        u = schur.solve_cholesky(system, rhs)
        did = Did(none, none, kind_of(StepKind.CHOLESKY), whole)
        return as_direction(system, root, rhs, u, way, did)
    if solver == "auto" and n <= SMALL:
        return _small(system, rhs, root, accuracy, way)
    if not may_be_sparse(solver, n):
        end = _conjugate_gradients(system, point, rhs, accuracy, jnp.asarray(many))
        did = Did(end.steps, none, kind_of(StepKind.CG), whole)
        return as_direction(system, root, rhs, end.x, way, did)

    first = PROBE if solver == "auto" else 0
    # Products to begin with: UNJUDGED, EXACT, SPARSE.
    budget = jnp.asarray([first, many, 0], jnp.int32)[way.kind]
    end = jax.lax.cond(
        budget > 0,
        lambda: _conjugate_gradients(system, point, rhs, accuracy, budget),
        lambda: CGResult(jnp.zeros_like(rhs), none, jnp.asarray(False)),
    )
    did = Did(end.steps, none, kind_of(StepKind.CG), whole)
    unknown = (way.kind == UNJUDGED) & ~end.converged
    way = jax.lax.cond(unknown, lambda: sparse_direction.judge(point, way), lambda: way)
    u, did, good = jax.lax.cond(
        way.kind == SPARSE,
        lambda: sparse_direction.solve(system, point, way, rhs, accuracy),
        lambda: (end.x, did, jnp.asarray(True)),
    )
    # What was slow is not tried again on this kernel.
    kind = jnp.where(good, way.kind, EXACT)
    both = jnp.where(way.kind == SPARSE, end.steps, 0) + did.products
    did = did._replace(products=both)
    way = way._replace(kind=kind.astype(jnp.int32))
    return as_direction(system, root, rhs, u, way, did)


def _small(system: SchurSystem, rhs, root, accuracy, way: Way) -> Direction:
    """Direction by CG, or by Cholesky's factor as soon as CG was slow on a kernel."""
    budget = jnp.where(way.kind == UNJUDGED, SMALL_PRODUCTS, 0)
    end = schur.solve_cg(system, rhs, accuracy, budget)
    u, kind = jax.lax.cond(
        end.converged,
        lambda: (end.x, kind_of(StepKind.CG)),
        lambda: (
            schur.solve_cholesky(system, rhs),
            kind_of(StepKind.CHOLESKY),
        ),
    )
    did = Did(end.steps, jnp.zeros_like(end.steps), kind, jnp.ones_like(accuracy))
    slow = ~end.converged | (_expected(end.steps, way.last) > SMALL_PRODUCTS)
    way = way._replace(kind=jnp.where(slow, EXACT, way.kind), last=end.steps)
    return as_direction(system, root, rhs, u, way, did)


def _expected(last: jax.Array, before: jax.Array) -> jax.Array:
    """[] products that the next direction will take, if they go on to grow.

    Close to the solution the shift vanishes, and on a plan that nearly splits each
    direction takes 3 to 7 times the products of the last.
    """
    now, then = last.astype(jnp.float32), before.astype(jnp.float32)
    growth = now / jnp.maximum(then, 1)
    growing = (then > 0) & (growth > 1)
    return jnp.where(growing, now * jnp.minimum(growth, MOST_GROWTH), 0)
