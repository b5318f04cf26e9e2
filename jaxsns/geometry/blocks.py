"""A loop over blocks of columns that keeps nothing of a block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import sharding


def scan(
    function: Callable[[Any], tuple[Any, Any]],
    columns: Any,
    size: int,
    axis: str | None = None,
) -> tuple[Any, Any]:
    """Apply a function to blocks of columns.

    Args:
      function: of a pytree [k, ...] to (sums, outputs).
      columns: pytree of [m, ...] arrays.
      size: columns of a block; the last one may be smaller.
      axis: axis of the devices, if this runs on one device's own columns.

    Returns:
      The sums of the sums, and the outputs one after another. Derivatives compute
      each block anew (`jax.checkpoint`).
    """
    # Inside a loop nothing of it can be merged with the forward pass anyway.
    function = jax.checkpoint(function, prevent_cse=False)
    m = jax.tree.leaves(columns)[0].shape[0]
    number = m // size
    part = lambda start, end: jax.tree.map(lambda t: t[start:end], columns)
    split = lambda t: t.reshape(number, size, *t.shape[1:])
    join = lambda t: t.reshape(-1, *t.shape[2:])
    shapes = jax.eval_shape(function, part(0, size))[0]
    zero = jax.tree.map(lambda t: jnp.zeros(t.shape, t.dtype), shapes)
    zero = sharding.varying(zero, axis)

    def step(sums, block):
        more, out = function(block)
        return jax.tree.map(jnp.add, sums, more), out

    whole = jax.tree.map(split, part(0, number * size))
    sums, outputs = control.scan(step, zero, whole)
    outputs = jax.tree.map(join, outputs)
    if number * size == m:
        return sums, outputs
    last, rest = function(part(number * size, m))
    both = lambda u, v: jnp.concatenate([u, v])
    return jax.tree.map(jnp.add, sums, last), jax.tree.map(both, outputs, rest)
