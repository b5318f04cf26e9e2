"""GMRES with restarts, for products that are not symmetric.

That of `jax.scipy.sparse.linalg` cannot run inside `jax.shard_map`: the constants it
starts from do not vary over the mesh. Residuals come from a vector in the left null
space of the Hessenberg matrix, so that no rotations are kept.
Source: Saad and Schultz, SIAM J. Sci. Stat. Comput. 7 (1986), 856.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import matmul, vdot

Product = Callable[[jax.Array], jax.Array]


def gmres(
    product: Product, b: jax.Array, *, tolerance: float, restart: int, restarts: int
) -> tuple[jax.Array, jax.Array]:
    """([n] x with product(x) = b, [] Euclidean norm of what is left of b).

    b: [n]. tolerance: of the residual, relative to b in the Euclidean norm;
    where it is not reached, what is left tells. restart: directions of a cycle, at most
    n. restarts: the most cycles. Costs a product a direction and one more a cycle, and
    keeps restart + 1 vectors of length n.
    """
    goal = tolerance * jnp.linalg.norm(b)

    def unfinished(state):
        _, residual, count = state
        return (jnp.linalg.norm(residual) > goal) & (count < restarts)

    def cycle(state):
        x, residual, count = state
        x = x + _correction(product, residual, goal, restart)
        return x, b - product(x), count + 1

    start = jnp.zeros_like(b), b, 0
    x, residual, _ = control.while_loop(unfinished, cycle, start)
    return x, jnp.linalg.norm(residual)


def _correction(
    product: Product, residual: jax.Array, goal: jax.Array, restart: int
) -> jax.Array:
    """[n] step whose residual is least among `restart` Krylov directions."""
    size = jnp.linalg.norm(residual)
    basis = jnp.zeros((restart + 1, *residual.shape), residual.dtype)
    basis = basis.at[0].set(_over(residual, size))
    # Columns that no direction fills keep a one below the diagonal: they get no weight.
    hessenberg = jnp.eye(restart + 1, restart, -1, residual.dtype)
    null = jnp.zeros(restart + 1, residual.dtype).at[0].set(1)

    def unfinished(state):
        _, _, null, count = state
        # The least residual is size / |null|; null is infinite where it is zero.
        return (count < restart) & (size > goal * jnp.linalg.norm(null))

    def direction(state):
        basis, hessenberg, null, count = state
        new = product(basis[count])
        # Twice, since rounding of the first time leaves what is not orthogonal.
        first = matmul(basis, new)
        new = new - matmul(first, basis)
        second = matmul(basis, new)
        new = new - matmul(second, basis)
        column, length = first + second, jnp.linalg.norm(new)
        entry = -vdot(null, column) / length
        return (
            basis.at[count + 1].set(_over(new, length)),
            hessenberg.at[:, count].set(column.at[count + 1].set(length)),
            null.at[count + 1].set(entry),
            count + 1,
        )

    start = basis, hessenberg, null, 0
    basis, hessenberg, _, _ = control.while_loop(unfinished, direction, start)
    q, r = jnp.linalg.qr(hessenberg)
    weights = jax.scipy.linalg.solve_triangular(r, size * q[0])
    return matmul(weights, basis[:-1])


def _over(vector: jax.Array, length: jax.Array) -> jax.Array:
    return vector / jnp.where(length > 0, length, 1)
