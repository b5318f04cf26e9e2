"""Decompositions of one matrix; a batch on a CPU is worked off one after another.

jaxlib 0.10 gives a batch of LAPACK calls to the thread pool on which the call itself
runs, and waits for it: as many such calls as there are threads, and the program stands
still for ever (seen with two batched `eigh` on two cores; 0.11.2 no longer does it).
Accelerators get the batch as it is.
"""

from collections.abc import Callable
from typing import Any

import jax


def _in_turn(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    @jax.custom_batching.custom_vmap
    def one(a: jax.Array) -> Any:
        return function(a)

    @one.def_vmap
    def batch(axis_size: int, is_batched: list[bool], a: jax.Array):
        del axis_size, is_batched
        out = jax.lax.platform_dependent(
            a, cpu=lambda x: jax.lax.map(one, x), default=jax.vmap(function)
        )
        return out, jax.tree.map(lambda _: True, out)

    def any_rank(a: jax.Array) -> Any:
        mapped = one
        for _ in range(a.ndim - 2):
            mapped = jax.vmap(mapped)
        return mapped(a)

    return any_rank


def _eigh(a: jax.Array):
    vectors, values = jax.lax.linalg.eigh(a, symmetrize_input=False)
    return values, vectors


def _svd(a: jax.Array):
    return tuple(jax.lax.linalg.svd(a, full_matrices=True))


eigh = _in_turn(_eigh)  # [..., d, d] -> values [..., d] rising, vectors [..., d, d]
svd = _in_turn(_svd)  # [..., d, d] -> U [..., d, d], s [..., d] falling, V^T
