"""Newton directions with the sparse matrix of the largest entries of the plan.

As the Newton matrix where what it drops is below the error, else as preconditioner of
conjugate gradients on the exact matrix. Source: Tang et al., ICLR 2024, Algorithm 1,
but that dropped mass is lumped onto the diagonal (`sparse_system`).
"""

import jax
import jax.numpy as jnp

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur as schur
from jaxsns.hessian import sparse_system
from jaxsns.hessian.schur import SchurSystem
from jaxsns.recording.history import StepKind
from jaxsns.solvers.newton.ways import EXACT, SPARSE, Did, Point, Way, kind_of

LIMIT = 0.05  # dropped mass above which a plan is not sparse
TRUSTED = 0.1  # of the error: dropped mass below it does not harm the direction
MOST = 40  # products of the exact matrix, with the sparse one as preconditioner
INNER, INNER_STEPS = 0.1, 200  # of the sparse solve inside a preconditioner


def solve(
    system: SchurSystem, point: Point, way: Way, rhs: jax.Array, accuracy: jax.Array
):
    """[n] solution, what was done, and [] whether it was good."""
    n, m = rhs.shape[0], point.v.shape[0]
    known = sparse_system.sizes(n, m)
    lost = sparse_system.dropped(way.pattern, point.u, point.v, point.rows)
    none = jnp.asarray(0, jnp.int32)

    def near(k: int) -> SchurSystem:
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
        end = schur.solve_cg(near(k), rhs, accuracy, INNER_STEPS + 2 * n)
        share = sparse_system.share(way.pattern, k)
        did = Did(none, end.steps, kind_of(StepKind.SPARSE), share)
        return end.x, did, end.converged

    def preconditioner():
        end = schur.solve_nested(
            system, near(known[-1]), rhs, accuracy, MOST, INNER, INNER_STEPS
        )
        good = end.converged & (lost[-1] <= LIMIT)
        share = sparse_system.share(way.pattern, known[-1])
        return (
            end.x,
            Did(end.steps, none, kind_of(StepKind.PRECONDITIONED), share),
            good,
        )

    # The fewest entries that drop too little to matter, or else the most there are.
    enough = lost <= TRUSTED * point.error
    choice = jnp.where(jnp.any(enough), jnp.argmax(enough), len(known))
    branches = [lambda k=k: matrix(k) for k in known]
    return jax.lax.switch(choice, [*branches, preconditioner])


@jax.named_scope("largest_entries")
def judge(point: Point, way: Way) -> Way:
    """PassResult for the largest entries; the plan is sparse if they hold nearly all."""
    assert isinstance(point.kernel, DenseKernel)
    pattern = sparse_system.largest(point.kernel, point.u, point.v, point.rows)
    lost = sparse_system.dropped(pattern, point.u, point.v, point.rows)
    kind = jnp.where(lost[-1] <= LIMIT, SPARSE, EXACT)
    return way._replace(kind=kind.astype(jnp.int32), pattern=pattern)
