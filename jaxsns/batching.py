"""What `vmap` does to a solve: tiny problems in step, others one after another.

Plain batching runs every inner loop to its slowest lane and both branches of every
`cond`. On a CPU a lane that runs alone keeps its matrix in the cache and stops when
it is done; on an accelerator lanes have to run side by side.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

Solve = Callable[..., Any]


def with_lanes(solve: Solve, together: Solve | None) -> Solve:
    """Give a solve of arrays its own rule of batching.

    Args:
      solve: function of pytrees of arrays, returning a pytree of arrays.
      together: the same for arguments all of whose leaves carry lanes on their
        first axis; None if there is no such way for these shapes.

    Returns:
      The function. Under `vmap` it calls `together`, or else `solve` lane by lane
      on a CPU and `vmap` of `solve` elsewhere. Nested `vmap` nests this.
    """

    @custom_vmap
    def one(*arguments):
        return solve(*arguments)

    @one.def_vmap
    def _(size, batched, *arguments):
        leaves, structure = jax.tree.flatten(arguments)
        flags = jax.tree.leaves(batched)
        if together is not None:
            spread = [
                x if flag else jnp.broadcast_to(x, (size, *jnp.shape(x)))
                for x, flag in zip(leaves, flags, strict=True)
            ]
            out = together(*jax.tree.unflatten(structure, spread))
            return out, jax.tree.map(lambda _: True, out)

        def lane(moving):
            mine = iter(moving)
            both = zip(leaves, flags, strict=True)
            return jax.tree.unflatten(
                structure, [next(mine) if flag else x for x, flag in both]
            )

        moving = [x for x, flag in zip(leaves, flags, strict=True) if flag]
        out = jax.lax.platform_dependent(
            moving,
            cpu=lambda xs: jax.lax.map(lambda x: one(*lane(x)), xs),
            default=lambda xs: jax.vmap(lambda x: solve(*lane(x)))(xs),
        )
        return out, jax.tree.map(lambda _: True, out)

    return one


def in_chunks(function: Solve, arguments: Any, size: int) -> Any:
    """Apply a function of lanes, on first axes, to `size` lanes at a time.

    The last chunk is filled up with the first lanes, whose answers are dropped.
    """
    leaves = jax.tree.leaves(arguments)
    number = leaves[0].shape[0]
    if number <= size:
        return function(arguments)
    chunks = -(-number // size)

    def cut(x: jax.Array) -> jax.Array:
        fill = jnp.concatenate([x, x[: chunks * size - number]])
        return fill.reshape(chunks, size, *x.shape[1:])

    out = jax.lax.map(function, jax.tree.map(cut, arguments))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:number], out)
