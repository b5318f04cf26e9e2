"""A Newton direction: by conjugate gradients, or a factor if it is small."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.hessian import schur
from jaxsns.hessian.schur import SchurSystem
from jaxsns.numerics import default_shift, vdot
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.recording.history import StepKind

LARGEST_FACTORISED = 64  # rows up to which a factor costs less than its products [D07]
# [D07]
MAX_PRODUCTS, PRODUCTS_PER_ROW = 500, 2  # of conjugate gradients, together a limit
MOST_PRODUCTS = 10_000  # [D07]
# A direction is solved to a share of a power of the error that the last one left, not
# finer than one power of the error now and no coarser than another [D02].
FORCING_SHARE, FORCING_POWER = 0.1, 1.5
FINEST_POWER, COARSEST_POWER = 0.6, 0.35  # [D02]
LAST_SHARE = 0.2  # of the target: error that the last direction aims at [D02]
COARSEST = 0.1  # accuracy of a direction, relative to the residual [D02]


class Direction(NamedTuple):
    """Direction in the log scaling x of the rows, and what the model promises."""

    dx: jax.Array  # [n]
    slope: jax.Array  # [] gain of the dual over epsilon per length, in mass
    curvature: jax.Array  # []
    products: jax.Array  # [] int32 of the linear solver
    kind: jax.Array  # [] int32, a StepKind


def factorises(solver: str, problem: KernelProblem) -> bool:
    """Whether directions are found by a factor; known when compiled.

    Raises ValueError for a kernel whose entries are not at hand.
    """
    if solver == "cholesky" and not problem.kernel.factorisable:
        raise ValueError(
            "linear_solver 'cholesky' needs the entries of the plan, which this "
            "geometry never forms; use 'auto' or 'cg', or geometry.dense()"
        )
    small = problem.f.shape[0] <= LARGEST_FACTORISED and problem.kernel.factorisable
    return solver == "cholesky" or (solver == "auto" and small)


def system_at(problem: KernelProblem, iterate: Iterate, shift: jax.Array):
    """Schur system at an iterate, with `shift` and the least one there always is.

    Without a least shift rounding tells the sign of curvature where a plan splits.
    """
    x, y = iterate.x, iterate.y
    rows = iterate.rows + problem.rows.stiffness(x)
    columns = problem.columns.at(y) + problem.columns.stiffness(y)
    least = jnp.maximum(shift, default_shift(shift.dtype))
    u, v = jnp.exp(x), jnp.exp(y)
    return schur.make_system(problem.kernel, u, v, rows, columns, least, problem.gauge)


def accuracy(
    iterate: Iterate, rhs: jax.Array, contraction: jax.Array, target: jax.Array
) -> jax.Array:
    """[] relative accuracy of a direction (Eisenstat and Walker 1996, choice 2).

    If the last step reduced the error little (`contraction` near 1), the quadratic
    model was poor and an accurate direction would be wasted. The L1 error that a
    residual of the system leaves is at most its 2-norm times the root of the mass, so
    the last direction is no finer than the target needs.
    """
    finest = 1e-6 if rhs.dtype == jnp.float64 else 1e-3
    size = jnp.linalg.norm(rhs)
    last = LAST_SHARE * target * jnp.sqrt(jnp.sum(iterate.rows)) / size
    left = jnp.where(contraction <= 1, contraction, 1)  # a NaN is 1 too
    wished = FORCING_SHARE * left**FORCING_POWER
    error = iterate.error
    forcing = jnp.clip(wished, error**FINEST_POWER, error**COARSEST_POWER)
    return jnp.clip(jnp.maximum(forcing, last), finest, COARSEST)


def find(
    solver: str,
    problem: KernelProblem,
    iterate: Iterate,
    shift: jax.Array,
    contraction: jax.Array,
    target: jax.Array,
    *,
    due: jax.Array | bool = True,
) -> Direction:
    """Newton direction at an iterate; `contraction`: of the last Newton step, or 0.

    due: [] bool whether it is wanted; if not, no steps are made for it.
    """
    system = system_at(problem, iterate, shift)
    stiff_rows = iterate.rows + problem.rows.stiffness(iterate.x)
    root = schur.inverse_root(stiff_rows)
    residual = problem.rows.at(iterate.x) - iterate.rows
    rhs = schur.project(system, root * residual)
    if factorises(solver, problem):
        u, products = schur.solve_cholesky(system, rhs), jnp.asarray(0, jnp.int32)
        kind = StepKind.CHOLESKY
    else:
        wanted = accuracy(iterate, rhs, contraction, target)
        n = rhs.shape[0]
        most = min(MAX_PRODUCTS + PRODUCTS_PER_ROW * n, MOST_PRODUCTS)
        most = jnp.where(due, most, 0)
        u, products, _ = schur.solve_cg(system, rhs, wanted, most)
        kind = StepKind.CG
    return _direction(system, root, rhs, u)._replace(
        products=products, kind=jnp.asarray(kind, jnp.int32)
    )


def _direction(system: SchurSystem, root, rhs, u: jax.Array) -> Direction:
    slope = vdot(rhs, u)
    curvature = slope - system.shift * vdot(u, u)
    zero = jnp.asarray(0, jnp.int32)
    return Direction(root * u, slope, curvature, zero, zero)
