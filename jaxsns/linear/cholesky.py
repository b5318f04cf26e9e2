"""A factorised symmetric solve with refinement."""

from collections.abc import Callable

import jax

from jaxsns.linear import lapack


def factorise(matrix: jax.Array) -> jax.Array:
    """Cholesky factor [n, n], of and in the lower triangle; anything above it.

    NaN where the matrix is not positive definite.
    """
    return lapack.cholesky(matrix)


def refined_solve(
    factor: jax.Array,
    product: Callable[[jax.Array], jax.Array],
    rhs: jax.Array,
    refinements: int,
) -> jax.Array:
    """Solve A x = rhs with the factor of a nearby matrix, [n].

    Each refinement multiplies the error by about (shift / eigenvalue) in every
    mode: modes well above the shift become exact, modes below it stay damped.
    """
    x = lapack.cholesky_solve(factor, rhs)
    for _ in range(refinements):
        x = x + lapack.cholesky_solve(factor, rhs - product(x))
    return x
