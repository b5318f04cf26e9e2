"""Conjugate gradients on a float32 copy of a kernel, ended on the kernel itself.

A product's time is that of reading the kernel: half in float32, and a third where the
copy fits a cache that the kernel does not [D40]. The copy is of the
kernel with the scalings of a point, whose entries are all below 1: squares of scalings
of e^45, as there are on a kernel, are no numbers of float32. Rounding of float32 is a
residual of its own in rows that nearly stand alone, so it stops where that would be
most of it, at 0.1 where a row has an entry below 1e-6 on the diagonal; such rows are
left out. What it cannot tell shows in the residual, which is found anew with the kernel
itself, unless rounding is far below a coarse accuracy; from there the same iteration
goes on.
Source: iterative refinement with an inner solver of lower precision, Carson and Higham,
SIAM J. Sci. Comput. 40 (2018).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry.kernel import DenseKernel, Kernel
from jaxsns.hessian import schur as schur
from jaxsns.hessian.schur import SchurSystem
from jaxsns.linear.conjugate_gradient import CGResult, conjugate_gradient
from jaxsns.numerics import smallest_kept

FINEST = 1e-5  # accuracy below which float32 is of no use [D40]
MOST = 100  # products in float32: with more of them directions are no faster [D40]
LEAST_DIAGONAL = 1e-6  # entry below which a row is left to float64 [D40]
ROUNDING = 1e-7  # over the least entry on the diagonal: accuracy of float32 [D40]
# [D40]
COARSE, MARGIN = 1e-3, 3.0  # accuracy from which float32 is believed, over rounding
SLACK = 1.5  # of the accuracy, that the residual found anew may miss it by [D40]


def pays(kernel: Kernel, rows: int, least: int) -> bool:
    """Whether a float32 copy is worth its making, which is known when compiling."""
    if not isinstance(kernel, DenseKernel) or rows <= least:
        return False
    return kernel.matrix.dtype == jnp.float64


class Rough(NamedTuple):
    """A kernel in float32, with scalings that were multiplied in: diag(l) K diag(r)."""

    kernel: DenseKernel
    left: jax.Array  # [n] l in the dtype of the solve; 0 for rows without mass
    right: jax.Array  # [m] r


def copy(system: SchurSystem) -> Rough:
    """Return Q of a system in float32, without what is subnormal there."""
    kernel, left, right = system.kernel, system.left, system.right
    assert isinstance(kernel, DenseKernel)
    small = smallest_kept(jnp.dtype(jnp.float32))
    matrix = left[:, None] * kernel.matrix * right[None, :]
    matrix = jnp.where(matrix < small, 0, matrix)
    return Rough(DenseKernel(matrix.astype(jnp.float32)), left, right)


def _over(scaling: jax.Array, known: jax.Array) -> jax.Array:
    return jnp.where(known > 0, scaling / jnp.where(known > 0, known, 1), 0)


@jax.named_scope("conjugate_gradients")
def solve(
    system: SchurSystem,
    rough: Rough,
    rhs: jax.Array,
    tolerance: jax.Array,
    max_steps: jax.Array,
) -> CGResult:
    """`schur.solve_cg` with most products in float32.

    rough: `copy` of the system, or of another on its kernel. Products of both kinds,
    and the one that finds the residual anew if there is one, count as steps.
    """
    pinned, system = system, schur.without_gauge(system)
    diagonal = schur.diagonal(system)
    inverse = 1 / diagonal
    square = jnp.vdot(rhs, inverse * rhs)
    size = jnp.sqrt(jnp.where(square > 0, square, 1))
    single = lambda x: x.astype(jnp.float32)
    low = system._replace(
        kernel=rough.kernel,
        left=_over(system.left, rough.left),
        right=_over(system.right, rough.right),
    )
    low = jax.tree.map(single, low)
    told = diagonal > LEAST_DIAGONAL
    least = jnp.maximum(jnp.min(diagonal), LEAST_DIAGONAL)
    low_inverse = single(jnp.where(told, inverse, 0))
    aim = jnp.maximum(tolerance, ROUNDING / least)
    most = jnp.where(tolerance >= FINEST, jnp.minimum(max_steps, MOST), 0)
    first = conjugate_gradient(
        lambda v: jnp.where(told, schur.product(low, v), 0),
        single(jnp.where(told, rhs / size, 0)),
        lambda v: low_inverse * v,
        single(aim),
        most,
    )

    found = size * first.x.astype(rhs.dtype)
    norms = square, jnp.vdot(rhs, rhs)
    # Rounding of its products is relative to x, in both norms that are to fall.
    weighted, plain = jnp.vdot(found, inverse * found), jnp.vdot(found, found)
    growth = jnp.sqrt(jnp.maximum(weighted / norms[0], plain / norms[1]))
    enough = tolerance >= jnp.maximum(
        jnp.maximum(COARSE, aim), MARGIN * ROUNDING * growth
    )
    sure = first.converged & jnp.all(told) & enough

    def left_over():
        x = found
        residual = rhs - schur.product(system, x)
        fallen = jnp.vdot(residual, inverse * residual)
        better = fallen < square  # not if float32 made it worse, or NaN
        pick = lambda new, old: jnp.where(better, new, old)
        return pick(x, jnp.zeros_like(rhs)), pick(residual, rhs)

    asked = (first.steps > 0) & ~sure
    believed = lambda: (jnp.where(sure, found, 0), jnp.where(sure, 0, rhs))
    x, residual = control.cond(asked, left_over, believed)
    spent = first.steps + jnp.where(asked, 1, 0)
    second = conjugate_gradient(
        lambda v: schur.product(system, v),
        residual,
        lambda v: inverse * v,
        jnp.where(spent > 0, SLACK, 1) * tolerance,
        jnp.maximum(max_steps - spent, 0),
        norms,
    )
    x = schur.project(pinned, x + second.x)
    return CGResult(x, spent + second.steps, second.converged)
