"""A Newton direction, by the cheapest of four ways that does.

- conjugate gradients on the exact matrix: best while they need few products;
- the sparse matrix of the largest entries: where many products would be needed and
  the plan is sparse. As the Newton matrix if what it drops is below the error, else
  as preconditioner on the exact matrix;
- Cholesky of the exact matrix: where many are needed and the plan is not sparse.

What a step finds out holds for the next ones on the same kernel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import newton_system, sparse_system
from jaxsns.geometry.kernel import DenseKernel, Kernel
from jaxsns.history import StepKind
from jaxsns.newton_system import NewtonSystem
from jaxsns.sparse_system import Pattern

LINEAR_SOLVERS = ("auto", "cg", "sparse", "cholesky")
ALWAYS_CHOLESKY, NEVER_CHOLESKY = 64, 4096  # rows; between them if CG is slow
MOST_STEPS = 10_000  # of conjugate gradients
PROBE = 40  # exact products after which sparsity is looked at: what that costs
SPARSE_LIMIT = 0.05  # dropped mass above which a plan is not sparse
TRUSTED = 0.1  # of the error: dropped mass below it does not harm the direction
INNER, INNER_STEPS = 0.1, 200  # of the sparse solve inside a preconditioner

UNJUDGED, EXACT, SPARSE, DIRECT = range(4)


class Way(NamedTuple):
    """How directions are found on a kernel."""

    kind: jax.Array  # [] int32
    pattern: Pattern


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
    looked_at = solver == "sparse" or (solver == "auto" and sparse_system.pays(n, m))
    rows, columns = (n, m) if looked_at else (0, 0)
    return Way(kind, sparse_system.nothing(rows, columns, dtype))


def _sparse_solve(
    system: NewtonSystem, point: Point, way: Way, rhs: jax.Array, accuracy: jax.Array
):
    """[n] solution, exact and sparse products, whether it was good, kind, kept."""
    n, m = rhs.shape[0], point.v.shape[0]
    known = sparse_system.sizes(n, m)
    lost = sparse_system.dropped(way.pattern, point.u, point.v, point.rows)
    none = jnp.asarray(0, jnp.int32)

    def near(k: int) -> NewtonSystem:
        entries = sparse_system.cut(way.pattern, k)
        return sparse_system.lumped(
            system,
            entries,
            point.u,
            point.v,
            (point.rows, point.columns),
            (point.row_stiffness, point.column_stiffness),
        )

    def matrix(k: int):
        end = newton_system.solve_cg(near(k), rhs, accuracy, INNER_STEPS + 2 * n)
        share = sparse_system.share(way.pattern, k)
        return end.x, none, end.steps, end.converged, _kind(StepKind.SPARSE), share

    def preconditioner():
        end = newton_system.solve_nested(
            system, near(known[-1]), rhs, accuracy, PROBE, INNER, INNER_STEPS
        )
        good = end.converged & (lost[-1] <= SPARSE_LIMIT)
        share = sparse_system.share(way.pattern, known[-1])
        return end.x, end.steps, none, good, _kind(StepKind.PRECONDITIONED), share

    # The fewest entries that drop too little to matter, or else the most there are.
    enough = lost <= TRUSTED * point.error
    choice = jnp.where(jnp.any(enough), jnp.argmax(enough), len(known))
    branches = [lambda k=k: matrix(k) for k in known]
    return jax.lax.switch(choice, [*branches, preconditioner])


@jax.named_scope("largest_entries")
def _judge(point: Point) -> Way:
    """Look for the largest entries; the plan is sparse if they hold nearly all."""
    assert isinstance(point.kernel, DenseKernel)
    pattern = sparse_system.largest(point.kernel, point.u, point.v, point.rows)
    lost = sparse_system.dropped(pattern, point.u, point.v, point.rows)
    kind = jnp.where(lost[-1] <= SPARSE_LIMIT, SPARSE, EXACT)
    return Way(kind.astype(jnp.int32), pattern)


def find(
    solver: str,
    point: Point,
    residual: jax.Array,
    shift: jax.Array,
    target: jax.Array,
    way: Way,
) -> Direction:
    """Newton direction for a residual a - rows [n]; `target`: the error aimed at."""
    diagonal = point.rows + point.row_stiffness
    system = newton_system.make_system(
        point.kernel,
        point.u,
        point.v,
        diagonal,
        point.columns + point.column_stiffness,
        shift,
        point.gauge,
    )
    root = newton_system.inverse_root(diagonal)
    rhs = newton_system.project(system, root * residual)
    finest = 1e-6 if rhs.dtype == jnp.float64 else 1e-3
    accuracy = jnp.maximum(jnp.sqrt(point.error), 0.25 * target / point.error)
    accuracy = jnp.clip(accuracy, finest, 0.1)
    n = rhs.shape[0]
    none = jnp.asarray(0, jnp.int32)
    whole = jnp.ones_like(point.error)
    if solver == "cholesky" or (solver == "auto" and n <= ALWAYS_CHOLESKY):
        u = newton_system.solve_cholesky(system, rhs)
        did = _Did(none, none, _kind(StepKind.CHOLESKY), whole)
        return _direction(system, root, rhs, u, way, did)
    if solver == "cg":
        most = min(500 + 2 * n, MOST_STEPS)
        end = newton_system.solve_cg(system, rhs, accuracy, most)
        did = _Did(end.steps, none, _kind(StepKind.CG), whole)
        return _direction(system, root, rhs, end.x, way, did)

    sparse_pays = solver == "sparse" or sparse_system.pays(n, point.v.shape[0])
    factors = n <= NEVER_CHOLESKY
    # A factorisation costs about as much as n / 5 products.
    most = 100 + n // 5 if factors else 500 + 2 * n
    first = (PROBE if solver == "auto" else 0) if sparse_pays else most
    budget = jnp.asarray([first, most, 0, 0], jnp.int32)[way.kind]
    end = newton_system.solve_cg(system, rhs, accuracy, budget)
    tired = ~end.converged & (way.kind == (EXACT if sparse_pays else UNJUDGED))
    if factors:
        way = way._replace(kind=jnp.where(tired, DIRECT, way.kind).astype(jnp.int32))
    if sparse_pays:
        unknown = (way.kind == UNJUDGED) & ~end.converged
        way = jax.lax.cond(unknown, lambda: _judge(point), lambda: way)

    def exact():
        return end.x, none, none, jnp.asarray(True), _kind(StepKind.CG), whole

    def sparse():
        return _sparse_solve(system, point, way, rhs, accuracy)

    def direct():
        u = newton_system.solve_cholesky(system, rhs)
        return u, none, none, jnp.asarray(True), _kind(StepKind.CHOLESKY), whole

    branches = [
        exact,
        exact,
        sparse if sparse_pays else exact,
        direct if factors else exact,
    ]
    u, products, sparse_products, good, done, kept = jax.lax.switch(way.kind, branches)
    # A sparse way that was slow is not taken again on this kernel.
    kind = jnp.where(good, way.kind, EXACT).astype(jnp.int32)
    way = way._replace(kind=kind)
    did = _Did(end.steps + products, sparse_products, done, kept)
    return _direction(system, root, rhs, u, way, did)


class _Did(NamedTuple):
    products: jax.Array
    sparse_products: jax.Array
    kind: jax.Array
    kept: jax.Array


def _kind(kind: StepKind) -> jax.Array:
    return jnp.asarray(kind, jnp.int32)


def _direction(system, root, rhs, u, way, did: _Did) -> Direction:
    slope = jnp.vdot(rhs, u)
    curvature = slope - system.shift * jnp.vdot(u, u)
    return Direction(root * u, slope, curvature, way, *did)
