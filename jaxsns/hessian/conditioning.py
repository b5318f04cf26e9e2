"""How well a plan fixes its potentials: the least eigenvalue of the Newton matrix."""

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.hessian import schur
from jaxsns.hessian.schur import SchurSystem
from jaxsns.linear import lapack
from jaxsns.numerics import machine_epsilon, matmul, vdot

PRODUCTS = 48  # of Lanczos' method; 1e-8 is found to 10 per cent with fewer [D42]


@jax.named_scope("conditioning")
def smallest_eigenvalue(system: SchurSystem) -> jax.Array:
    """[] least eigenvalue of a system without its gauge direction, from above.

    Lanczos' method with full reorthogonalisation. Cost: min(n, 48) products.
    """
    n = system.left.shape[0]
    steps = min(PRODUCTS, n)
    dtype = system.left.dtype
    # Any vector does that is not orthogonal to what is looked for.
    start = jnp.sin(1.0 + jnp.arange(n, dtype=dtype) ** 2)
    start = schur.project(system, jnp.where(system.left > 0, start, 0))
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x), machine_epsilon(dtype))

    def step(k, state):
        basis, diagonal, beside = state
        v = basis[k]
        image = schur.product(system, v)  # its gauge direction has eigenvalue 1
        diagonal = diagonal.at[k].set(vdot(v, image))
        for _ in range(2):  # once is not orthogonal to rounding
            image = image - matmul(matmul(basis, image), basis)
        size = jnp.linalg.norm(image)
        # An invariant space was found: what would follow is rounding.
        ended = size <= n * machine_epsilon(dtype)
        new = jnp.where(ended, 0, unit(image))
        basis = basis.at[k + 1].set(new, mode="drop")
        return basis, diagonal, beside.at[k].set(jnp.where(ended, 0, size))

    basis = jnp.zeros((steps, n), dtype).at[0].set(unit(start))
    zeros = jnp.zeros((steps,), dtype)
    basis, diagonal, beside = control.fori_loop(0, steps, step, (basis, zeros, zeros))
    used = jnp.sum(basis**2, axis=1) > 0
    # Rows that were not reached stand for eigenvalues in the middle of nowhere.
    diagonal = jnp.where(used, diagonal, 1)
    off = jnp.where(used[1:], beside[:-1], 0)
    tridiagonal = jnp.diag(diagonal) + jnp.diag(off, 1) + jnp.diag(off, -1)
    values = lapack.eigh(tridiagonal)[0]
    return jnp.clip(values[0], machine_epsilon(dtype), 1)
