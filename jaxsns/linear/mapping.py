"""Maps over the first axis: in turn, side by side, in chunks, or of a part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control

Solve = Callable[..., Any]


def each(in_turn: Solve, beside: Solve | None = None) -> Solve:
    """Map over lanes: one after another on a CPU, side by side elsewhere.

    `beside` is the function to be batched by plain `vmap`, if not the same.
    """
    other = in_turn if beside is None else beside
    return lambda xs: control.platform_dependent(
        xs, cpu=lambda xs: jax.lax.map(in_turn, xs), default=jax.vmap(other)
    )


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


def finish(
    function: Solve, arguments: Any, out: Any, left: jax.Array, size: int
) -> Any:
    """Replace the results of some lanes, gathered into chunks of `size`.

    Args:
      function: of arguments and results with lanes on first axes, to new results.
      arguments: with lanes on first axes.
      out: results so far, likewise.
      left: [lanes] bool, the lanes to be replaced.
      size: lanes at a time; all those of a chunk share the time of its slowest.

    Cost: as many calls as chunks are needed for what is left, none for nothing.
    """
    number = left.shape[0]
    size = min(size, number)
    places = jnp.nonzero(left, size=number + size, fill_value=number)[0]
    count = jnp.sum(left)

    def chunk(state):
        k, out = state
        here = jax.lax.dynamic_slice(places, (k * size,), (size,))
        take = lambda x: x.at[here].get(mode="clip")
        new = function(jax.tree.map(take, arguments), jax.tree.map(take, out))
        put = lambda x, y: x.at[here].set(y, mode="drop")
        return k + 1, jax.tree.map(put, out, new)

    zero = jnp.zeros_like(count)
    return control.while_loop(lambda s: s[0] * size < count, chunk, (zero, out))[1]
