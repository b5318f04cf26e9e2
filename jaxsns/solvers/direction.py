"""A Newton direction, by the cheapest of five ways that does.

- conjugate gradients on the exact matrix: best while they need few products;
- the sparse matrix of the largest entries: where many products would be needed and
  the plan is sparse. As the Newton matrix if what it drops is below the error, else
  as preconditioner on the exact matrix;
- a float32 factor of the exact matrix, found once, as preconditioner on it: where many
  are needed and the plan is not sparse;
- Cholesky of the exact matrix each time: where that does not help either.

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
MANY_PRODUCTS = 500  # and 2 a row, where there is nothing but conjugate gradients
# What a float32 factor costs in products: 20, and 1 for 8 rows, 220 at most.
LEAST_PRODUCTS, ROWS_A_PRODUCT, MOST_PRODUCTS = 20, 8, 200
MOST_GROWTH = 6.0  # that is believed, of products from one direction to the next
PROBE = 40  # exact products after which sparsity is looked at: what that costs
SPARSE_LIMIT = 0.05  # dropped mass above which a plan is not sparse
TRUSTED = 0.1  # of the error: dropped mass below it does not harm the direction
INNER, INNER_STEPS = 0.1, 200  # of the sparse solve inside a preconditioner

UNJUDGED, EXACT, SPARSE, FACTORED, DIRECT = range(5)


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
    lists = sparse_system.nothing(rows, columns, dtype)
    return Way(kind, lists, jnp.zeros_like(kind))


class _Did(NamedTuple):
    products: jax.Array
    sparse_products: jax.Array
    kind: jax.Array
    kept: jax.Array


def _kind(kind: StepKind) -> jax.Array:
    return jnp.asarray(kind, jnp.int32)


def may_factorise(solver: str, n: int) -> bool:
    """Whether a factor for several steps may come to be wanted."""
    within = n <= NEVER_CHOLESKY and (solver != "auto" or n > ALWAYS_CHOLESKY)
    return within and solver in ("auto", "sparse")


def after(way: Way, accepted: jax.Array) -> Way:
    """No factor of old any more after a direction along which no step was good."""
    kind = jnp.where(~accepted & (way.kind == FACTORED), DIRECT, way.kind)
    return way._replace(kind=kind.astype(jnp.int32))


def _system(point: Point, shift: jax.Array) -> NewtonSystem:
    return newton_system.make_system(
        point.kernel,
        point.u,
        point.v,
        point.rows + point.row_stiffness,
        point.columns + point.column_stiffness,
        shift,
        point.gauge,
    )


@jax.named_scope("factor")
def factor_at(point: Point, shift: jax.Array) -> jax.Array:
    """[n, n] float32 factor of the Newton matrix here, for this and further steps."""
    return newton_system.factorise(_system(point, shift))


def no_factor(n: int) -> jax.Array:
    """Stand in for a factor, [n, n], where there is none yet; [0, 0] for none ever."""
    return jnp.zeros((n, n), jnp.float32)


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
def _judge(point: Point, way: Way) -> Way:
    """Look for the largest entries; the plan is sparse if they hold nearly all."""
    assert isinstance(point.kernel, DenseKernel)
    pattern = sparse_system.largest(point.kernel, point.u, point.v, point.rows)
    lost = sparse_system.dropped(pattern, point.u, point.v, point.rows)
    kind = jnp.where(lost[-1] <= SPARSE_LIMIT, SPARSE, EXACT)
    return way._replace(kind=kind.astype(jnp.int32), pattern=pattern)


def find(
    solver: str,
    point: Point,
    residual: jax.Array,
    shift: jax.Array,
    target: jax.Array,
    way: Way,
    factor: jax.Array,
) -> Direction:
    """Newton direction for a residual a - rows [n]; `target`: the error aimed at.

    factor: what `factor_at` gave where the way became FACTORED, or `no_factor`.
    """
    system = _system(point, shift)
    root = newton_system.inverse_root(point.rows + point.row_stiffness)
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
        most = min(MANY_PRODUCTS + 2 * n, MOST_STEPS)
        end = newton_system.solve_cg(system, rhs, accuracy, most)
        did = _Did(end.steps, none, _kind(StepKind.CG), whole)
        return _direction(system, root, rhs, end.x, way, did)

    sparse_pays = solver == "sparse" or sparse_system.pays(n, point.v.shape[0])
    factors = may_factorise(solver, n)
    most = (
        LEAST_PRODUCTS + min(n // ROWS_A_PRODUCT, MOST_PRODUCTS)
        if factors
        else MANY_PRODUCTS + 2 * n
    )
    unsolved = EXACT if sparse_pays else UNJUDGED
    first = (PROBE if solver == "auto" else 0) if sparse_pays else most
    budget = jnp.asarray([first, most, 0, 0, 0], jnp.int32)[way.kind]
    end = newton_system.solve_cg(system, rhs, accuracy, budget)
    tired = ~end.converged & (way.kind == unsolved)
    if sparse_pays:
        unknown = (way.kind == UNJUDGED) & ~end.converged
        way = jax.lax.cond(unknown, lambda: _judge(point, way), lambda: way)

    def exact():
        return end.x, none, none, jnp.asarray(True), _kind(StepKind.CG), whole

    def sparse():
        return _sparse_solve(system, point, way, rhs, accuracy)

    def factored():
        end = newton_system.solve_factored(system, factor, rhs, accuracy, PROBE)
        return end.x, end.steps, none, end.converged, _kind(StepKind.CHOLESKY), whole

    def direct():
        return end.x, none, none, jnp.asarray(False), _kind(StepKind.CHOLESKY), whole

    branches = [exact, exact, sparse if sparse_pays else exact]
    branches += [factored, direct] if factors else [exact, exact]
    u, products, sparse_products, good, done, kept = jax.lax.switch(way.kind, branches)
    # A way that was slow is not taken again on this kernel.
    worse = jnp.where(way.kind >= FACTORED, DIRECT, EXACT)
    kind = jnp.where(good, way.kind, worse)
    if factors:
        u = jax.lax.cond(
            ~good & (worse == DIRECT),
            lambda: newton_system.solve_cholesky(system, rhs),
            lambda: u,
        )
    taken = end.steps + products
    if factors:
        # What was found is used all the same; from the next step on with a factor.
        slow = tired | (_expected(taken, way.last) > most)
        kind = jnp.where((way.kind == unsolved) & slow, FACTORED, kind)
    way = way._replace(kind=kind.astype(jnp.int32), last=taken)
    did = _Did(taken, sparse_products, done, kept)
    return _direction(system, root, rhs, u, way, did)


def _expected(last: jax.Array, before: jax.Array) -> jax.Array:
    """[] products that the next direction will take, if they go on to grow.

    Close to the solution the shift vanishes, and on a plan that nearly splits each
    direction takes 3 to 7 times the products of the last.
    """
    now, then = last.astype(jnp.float32), before.astype(jnp.float32)
    growth = now / jnp.maximum(then, 1)
    growing = (then > 0) & (growth > 1)
    return jnp.where(growing, now * jnp.minimum(growth, MOST_GROWTH), 0)


def _direction(system, root, rhs, u, way, did: _Did) -> Direction:
    slope = jnp.vdot(rhs, u)
    curvature = slope - system.shift * jnp.vdot(u, u)
    return Direction(root * u, slope, curvature, way, *did)
