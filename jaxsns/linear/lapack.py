"""LAPACK calls of one matrix; a batch of them on a CPU is worked off in turn.

jaxlib 0.10 gives a batch of LAPACK calls to the thread pool on which the call itself
runs, and waits for it: with as many such calls at once as there are threads, the
program stands still for ever (seen with eigh, Cholesky and triangular solves on two
cores; jaxlib 0.11.2 no longer does it). Accelerators get the batch as it is.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control

# [D21]
SMALL = 16  # up to this size many matrices share loops instead of calls of a library


def _in_turn(
    function: Callable[..., Any], small: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """The function of arrays; a batch on a CPU by `small` where it fits, or in turn."""

    @control.custom_vmap
    def one(*arrays: jax.Array) -> Any:
        return function(*arrays)

    @one.def_vmap
    def batch(axis_size: int, is_batched: list[bool], *arrays: jax.Array):
        spread = tuple(
            x if mapped else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, mapped in zip(arrays, is_batched, strict=True)
        )
        fits = small is not None and spread[0].shape[-1] <= SMALL

        def on_cpu(*x: jax.Array) -> Any:
            if small is not None and fits:
                return jax.vmap(small)(*x)
            return jax.lax.map(lambda y: one(*y), x)

        out = control.platform_dependent(
            *spread, cpu=on_cpu, default=jax.vmap(function)
        )
        return out, jax.tree.map(lambda _: True, out)

    return one


def _factor(a: jax.Array) -> jax.Array:
    # Without the mask of `jax.lax.linalg.cholesky`, which XLA keeps as an array.
    return jax.lax.linalg.cholesky_p.bind(a)


def _small_factor(a: jax.Array) -> jax.Array:
    """Cholesky in loops, column by column; NaN where a pivot is not positive."""
    index = jnp.arange(a.shape[0])

    def column(j: jax.Array, rest: jax.Array) -> jax.Array:
        scaled = jnp.where(index >= j, rest[:, j] / jnp.sqrt(rest[j, j]), 0)
        later = (index[:, None] > j) & (index[None, :] > j)
        rest = jnp.where(later, rest - scaled[:, None] * scaled[None, :], rest)
        return jnp.where(index[None, :] == j, scaled[:, None], rest)

    return jnp.tril(control.fori_loop(0, a.shape[0], column, a))


def _solve(factor: jax.Array, rhs: jax.Array) -> jax.Array:
    return jax.scipy.linalg.cho_solve((factor, True), rhs)


def _small_solve(factor: jax.Array, rhs: jax.Array) -> jax.Array:
    """Substitution in loops, forward and back."""
    n = factor.shape[0]
    here = jnp.arange(n)[:, None]

    def row(x: jax.Array, j: jax.Array, coefficients: jax.Array) -> jax.Array:
        others = jnp.where(here == j, 0, coefficients[:, None] * x)
        value = (x[j] - jnp.sum(others, axis=0)) / coefficients[j]
        return jnp.where(here == j, value[None], x)

    # Entries not yet solved for meet the zeros of the triangle.
    x = control.fori_loop(0, n, lambda j, x: row(x, j, factor[j]), rhs)
    back = lambda k, x: row(x, n - 1 - k, factor[:, n - 1 - k])
    return control.fori_loop(0, n, back, x)


def _eigh(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    vectors, values = jax.lax.linalg.eigh(a, symmetrize_input=False)
    return values, vectors


def _svd(a: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.lax.linalg.svd(a, full_matrices=True))


_one_factor = _in_turn(_factor, _small_factor)
_one_solve = _in_turn(_solve, _small_solve)
_one_eigh = _in_turn(_eigh)
_one_svd = _in_turn(_svd)


@control.custom_vmap
def _solve_columns(factor: jax.Array, rhs: jax.Array) -> jax.Array:
    return _one_solve(factor, rhs)


@_solve_columns.def_vmap
def _(axis_size: int, is_batched: list[bool], factor: jax.Array, rhs: jax.Array):
    if is_batched[0]:
        axes = [0 if mapped else None for mapped in is_batched]
        return jax.vmap(_one_solve, axes)(factor, rhs), True
    # One matrix for all: more columns of one call.
    n, k = rhs.shape[1:]
    wide = jnp.moveaxis(rhs, 0, 1).reshape(n, axis_size * k)
    x = _solve_columns(factor, wide).reshape(n, axis_size, k)
    return jnp.moveaxis(x, 1, 0), True


def _any_rank(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    def mapped(a: jax.Array) -> Any:
        call = function
        for _ in range(a.ndim - 2):
            call = jax.vmap(call)
        return call(a)

    return mapped


# [..., d, d], of which the lower triangle is read, -> the factor in the lower triangle,
# anything above it; NaN if the matrix is not positive definite.
cholesky = _any_rank(_one_factor)
eigh = _any_rank(_one_eigh)  # [..., d, d] -> values [..., d] rising, vectors
svd = _any_rank(_one_svd)  # [..., d, d] -> U, s [..., d] falling, V^T


def cholesky_solve(factor: jax.Array, rhs: jax.Array) -> jax.Array:
    """Solve L L^T x = rhs, [n], with the factor L [n, n]; O(n^2)."""
    return _solve_columns(factor, rhs[:, None])[:, 0]


def triangular_inverse(lower: jax.Array) -> jax.Array:
    """Inverse of a lower triangular matrix [n, n]; O(n^3)."""
    unit = jnp.eye(lower.shape[0], dtype=lower.dtype)
    return jax.lax.linalg.triangular_solve(lower, unit, left_side=True, lower=True)


def cholesky_inverse(matrix: jax.Array) -> jax.Array:
    """Inverse of a positive definite matrix [n, n]; NaN if it is not; O(n^3)."""
    unit = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    return _solve_columns(cholesky(matrix), unit)
