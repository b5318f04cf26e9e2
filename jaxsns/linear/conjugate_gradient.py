"""Preconditioned conjugate gradients with an honest end."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.numerics import vdot


class CGResult(NamedTuple):
    """Where the iteration stopped."""

    x: jax.Array  # [n]
    steps: jax.Array  # [] int32 products with the matrix
    converged: jax.Array  # [] bool: the test on the residual was met


class _State(NamedTuple):
    x: jax.Array
    residual: jax.Array
    direction: jax.Array
    square: jax.Array  # r . M^-1 r
    step: jax.Array
    broken: jax.Array


def conjugate_gradient(
    product: Callable[[jax.Array], jax.Array],
    rhs: jax.Array,
    precondition: Callable[[jax.Array], jax.Array],
    tolerance: ArrayLike,
    max_steps: ArrayLike,
    reference: tuple[ArrayLike, ArrayLike] | None = None,
) -> CGResult:
    """Solve A x = rhs for a symmetric positive definite A given by its product.

    Args:
      product: [n] -> [n].
      rhs: [n].
      precondition: [n] -> [n], an approximation of the inverse of A; it may change
        from call to call, as an inner iteration does.
      tolerance: [] stop when the residual has fallen by this factor, both in the norm
        of the preconditioner and in the 2-norm: the first is blind to what lies in
        rows that it gives little weight, the second to slow modes.
      max_steps: [] int; 0 returns zero at once.
      reference: squares of both norms that the residual is compared with, if not those
        of rhs.

    A direction of non-positive or non-finite curvature (rounding in a nearly
    singular matrix) ends the iteration with what was reached before it.
    Cost: one product and one preconditioning a step. Source: Hestenes and Stiefel
    (1952); the flexible form of Golub and Ye, SIAM J. Sci. Comput. 21 (1999).
    """
    z = precondition(rhs)
    start = vdot(rhs, z)
    squares = reference or (start, vdot(rhs, rhs))
    goal, plain = (tolerance**2 * x for x in squares)
    zero = jnp.asarray(0, jnp.int32)
    state = _State(jnp.zeros_like(rhs), rhs, z, start, zero, jnp.asarray(False))

    def met(s: _State) -> jax.Array:
        # Below zero the preconditioner is not definite, and the test says nothing.
        preconditioned = (s.square <= goal) & (s.square >= 0)
        return preconditioned & (vdot(s.residual, s.residual) <= plain)

    def running(s: _State) -> jax.Array:
        return ~met(s) & (s.square > 0) & (s.step < max_steps) & ~s.broken

    def update(s: _State) -> _State:
        image = product(s.direction)
        curvature = vdot(s.direction, image)
        step = s.square / curvature
        fine = (curvature > 0) & jnp.isfinite(step)
        x = jnp.where(fine, s.x + step * s.direction, s.x)
        residual = jnp.where(fine, s.residual - step * image, s.residual)
        z = precondition(residual)
        square = vdot(residual, z)
        # Polak and Ribiere's factor: z . (change of the residual).
        beta = (square - vdot(z, s.residual)) / s.square
        return _State(x, residual, z + beta * s.direction, square, s.step + 1, ~fine)

    end = control.while_loop(running, update, state)
    return CGResult(end.x, end.step, met(end))
