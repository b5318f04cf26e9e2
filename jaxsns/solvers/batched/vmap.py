"""What `vmap` does to a solve: tiny problems in step, others one after another.

Plain batching runs every inner loop to its slowest lane and both branches of every
`cond`. On a CPU a lane that runs alone keeps its matrix in the cache and stops when
it is done; on an accelerator lanes have to run side by side.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear.mapping import Solve, each

LARGEST_COPY = 1 << 26  # bytes of what all lanes have in common, given to each [D17]


def batched(
    solve: Solve,
    lockstep: Solve | None,
    joint: Solve | None = None,
    *,
    numbered: bool = False,
) -> Solve:
    """Give a solve of arrays its own rule of batching.

    Args:
      solve: function of pytrees of arrays, returning a pytree of arrays.
      lockstep: the same for arguments all of whose leaves carry lanes on their
        first axis; None if there is no such way for these shapes.
      joint: function of the number of lanes, of a pytree of bools that says which
        leaves have lanes, and of the arguments: the result with lanes, or None if
        what the lanes have in common is of no use. None if there is no such way.
      numbered: the last argument is a pair of int32, which lane it is and how many
        there are; each lane gets its own.

    Returns:
      The function. Under `vmap` it calls `lockstep`, or `joint`, or else `solve`
      lane by lane on a CPU and `vmap` of `solve` elsewhere. More lanes: see `merging`.
    """

    @control.custom_vmap
    def one(*arguments):
        return solve(*arguments)

    @one.def_vmap
    def _(size, is_batched, *arguments):
        out = None
        if numbered:
            arguments, is_batched = _numbered(size, is_batched, arguments)
        if lockstep is not None:
            lanes = spread(size, is_batched, arguments)
            out = merging(functools.partial(_of_lanes, lockstep))(None, lanes)
        elif joint is not None:
            out = joint(size, is_batched, *arguments)
        if out is None:
            out = _lane_by_lane(one, solve, is_batched, arguments)
        return out, jax.tree.map(lambda _: True, out)

    return one


def _lane_by_lane(in_turn: Solve, beside: Solve, batched: Any, arguments: Any) -> Any:
    """Map as in `each` over the leaves that have lanes; the others are not copied."""
    leaves, structure = jax.tree.flatten(arguments)
    flags = jax.tree.leaves(batched)
    moving = [x for x, flag in zip(leaves, flags, strict=True) if flag]

    def lane(function, mine):
        mine = iter(mine)
        both = zip(leaves, flags, strict=True)
        full = [next(mine) if flag else x for x, flag in both]
        return function(*jax.tree.unflatten(structure, full))

    take = functools.partial
    return each(take(lane, in_turn), take(lane, beside))(moving)


def _of_lanes(together: Solve, _: None, lanes: Any) -> Any:
    return together(*lanes)


def _numbered(size: int, batched: Any, arguments: Any) -> tuple[Any, Any]:
    *others, lane = arguments
    mine = jnp.arange(size, dtype=jnp.int32)
    lane = type(lane)(lane[0] * size + mine, lane[1] * size)
    return (*others, lane), (*batched[:-1], type(lane)(True, False))


def spread(size: int, batched: Any, arguments: Any) -> Any:
    """Give lanes, on the first axis, to those leaves that have none."""

    def leaf(x: jax.Array, flag: bool) -> jax.Array:
        return x if flag else jnp.broadcast_to(x, (size, *jnp.shape(x)))

    leaves, structure = jax.tree.flatten(arguments)
    flags = jax.tree.leaves(batched)
    return jax.tree.unflatten(structure, map(leaf, leaves, flags))


def merging(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Let a function of something common and of lanes take more lanes under `vmap`.

    They are merged with those that it has, on the first axis of every leaf of its
    second argument and of its result. Not where the first has lanes too, or where much
    would have to be copied for each of the new lanes: these follow one another then.
    """

    @control.custom_vmap
    def merged(common, lanes):
        return function(common, lanes)

    @merged.def_vmap
    def _(size, batched, common, lanes):
        pairs = zip(jax.tree.leaves(lanes), jax.tree.leaves(batched[1]), strict=True)
        copied = size * sum(x.nbytes for x, moves in pairs if not moves)
        if any(jax.tree.leaves(batched[0])) or copied > LARGEST_COPY:
            out = _lane_by_lane(merged, function, batched, (common, lanes))
        else:
            lanes = spread(size, batched[1], lanes)
            inner = jax.tree.leaves(lanes)[0].shape[1]
            flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lanes)
            out = merged(common, flat)
            out = jax.tree.map(lambda x: x.reshape(size, inner, *x.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    return merged
