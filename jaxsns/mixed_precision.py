"""Conjugate gradients on a float32 copy of a kernel, ended on the kernel itself.

A product's time is that of reading the kernel: half in float32, and a third where the
copy fits a cache that the kernel does not (docs/decisions.md). What float32 cannot
tell, modes with eigenvalues below 1e-7 of a plan that nearly splits, shows in the
residual, which is found anew with the kernel itself; from there the same iteration
goes on.
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
MOST = 100  # products in float32: a plan that takes more nearly splits
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
    inverse = 1 / newton_system.diagonal(system)
    square = jnp.vdot(rhs, inverse * rhs)
    size = jnp.sqrt(jnp.where(square > 0, square, 1))
    single = lambda x: x.astype(jnp.float32)
    low = jax.tree.map(single, system._replace(kernel=rough))
    low_inverse = single(inverse)
    most = jnp.where(tolerance >= FINEST, jnp.minimum(max_steps, MOST), 0)
    first = conjugate_gradient(
        lambda v: newton_system.product(low, v),
        single(rhs / size),
        lambda v: low_inverse * v,
        single(tolerance),
        most,
    )

    def left_over():
        x = size * first.x.astype(rhs.dtype)
        residual = rhs - newton_system.product(system, x)
        fallen = jnp.vdot(residual, inverse * residual)
        better = fallen < square  # not if float32 made it worse, or NaN
        pick = lambda new, old: jnp.where(better, new, old)
        return pick(x, jnp.zeros_like(rhs)), pick(residual, rhs), pick(fallen, square)

    nothing = lambda: (jnp.zeros_like(rhs), rhs, square)
    x, residual, fallen = jax.lax.cond(first.steps > 0, left_over, nothing)
    spent = first.steps + jnp.where(first.steps > 0, 1, 0)
    near = jnp.where(spent > 0, SLACK, 1) * tolerance
    second = conjugate_gradient(
        lambda v: newton_system.product(system, v),
        residual,
        lambda v: inverse * v,
        near * jnp.sqrt(square / jnp.where(fallen > 0, fallen, 1)),
        jnp.maximum(max_steps - spent, 0),
    )
    return CGResult(x + second.x, spent + second.steps, second.converged)
