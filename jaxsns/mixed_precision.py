"""Conjugate gradients on a float32 copy of a kernel, ended on the kernel itself.

A product's time is that of reading the kernel: half in float32, and a third where the
copy fits a cache that the kernel does not (docs/decisions.md). Rows that nearly stand
alone, with an entry below 1e-6 on the diagonal, are left out there: rounding of float32
would pass for a residual of theirs. What it cannot tell shows in the residual, which is
found anew with the kernel itself; from there the same iteration goes on.
Source: iterative refinement with an inner solver of lower precision, Carson and Higham,
SIAM J. Sci. Comput. 40 (2018).
"""

import jax
import jax.numpy as jnp

from jaxsns import newton_system
from jaxsns.geometry.kernel import DenseKernel, Kernel
from jaxsns.linear.conjugate_gradient import CGResult, conjugate_gradient
from jaxsns.newton_system import NewtonSystem
from jaxsns.numerics import smallest_kept

FINEST = 1e-5  # accuracy below which float32 is of no use
MOST = 100  # products in float32: with more of them directions are no faster
LEAST_DIAGONAL = 1e-6  # entry below which a row is left to float64
COARSE = 1e-2  # accuracy of float32 where any row is
SLACK = 1.5  # of the accuracy, that the residual found anew may miss it by


def pays(kernel: Kernel, rows: int, least: int) -> bool:
    """Whether a float32 copy is worth its making, which is known when compiling."""
    if not isinstance(kernel, DenseKernel) or rows <= least:
        return False
    return kernel.matrix.dtype == jnp.float64


def copy(kernel: Kernel) -> DenseKernel:
    """Return the kernel in float32, without what is subnormal there."""
    assert isinstance(kernel, DenseKernel)
    small = smallest_kept(jnp.dtype(jnp.float32))
    matrix = jnp.where(kernel.matrix < small, 0, kernel.matrix)
    return DenseKernel(matrix.astype(jnp.float32))


@jax.named_scope("conjugate_gradients")
def solve(
    system: NewtonSystem,
    rough: DenseKernel,
    rhs: jax.Array,
    tolerance: jax.Array,
    max_steps: jax.Array,
) -> CGResult:
    """`newton_system.solve_cg` with most products in float32.

    rough: `copy` of the system's kernel. Products of both kinds, and the one that finds
    the residual anew, count as steps.
    """
    pinned, system = system, newton_system.unpinned(system)
    diagonal = newton_system.diagonal(system)
    inverse = 1 / diagonal
    square = jnp.vdot(rhs, inverse * rhs)
    size = jnp.sqrt(jnp.where(square > 0, square, 1))
    single = lambda x: x.astype(jnp.float32)
    low = jax.tree.map(single, system._replace(kernel=rough))
    told = diagonal > LEAST_DIAGONAL
    low_inverse = single(jnp.where(told, inverse, 0))
    most = jnp.where(tolerance >= FINEST, jnp.minimum(max_steps, MOST), 0)
    first = conjugate_gradient(
        lambda v: jnp.where(told, newton_system.product(low, v), 0),
        single(jnp.where(told, rhs / size, 0)),
        lambda v: low_inverse * v,
        single(jnp.where(jnp.all(told), tolerance, jnp.maximum(tolerance, COARSE))),
        most,
    )

    def left_over():
        x = size * first.x.astype(rhs.dtype)
        residual = rhs - newton_system.product(system, x)
        fallen = jnp.vdot(residual, inverse * residual)
        better = fallen < square  # not if float32 made it worse, or NaN
        pick = lambda new, old: jnp.where(better, new, old)
        return pick(x, jnp.zeros_like(rhs)), pick(residual, rhs)

    nothing = lambda: (jnp.zeros_like(rhs), rhs)
    x, residual = jax.lax.cond(first.steps > 0, left_over, nothing)
    spent = first.steps + jnp.where(first.steps > 0, 1, 0)
    second = conjugate_gradient(
        lambda v: newton_system.product(system, v),
        residual,
        lambda v: inverse * v,
        jnp.where(spent > 0, SLACK, 1) * tolerance,
        jnp.maximum(max_steps - spent, 0),
        (square, jnp.vdot(rhs, rhs)),
    )
    x = newton_system.project(pinned, x + second.x)
    return CGResult(x, spent + second.steps, second.converged)
