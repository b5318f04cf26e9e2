"""A loop over blocks of columns that keeps nothing of a block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import sharding


def _even(m: int, size: int, multiple: int) -> int:
    """Columns of a block, more than half of `size`, that leave none over if any do.

    A smaller block at the end is a second copy of the function in the program, and
    there is one for each pass that a solver makes [D26].
    """
    most = max(size // multiple, 1)
    some = (k for k in range(most, most // 2, -1) if m % (k * multiple) == 0)
    return multiple * next(some, most)


def scan(
    function: Callable[[Any], tuple[Any, Any]],
    columns: Any,
    size: int,
    axis: str | None = None,
    multiple: int = 1,
) -> tuple[Any, Any]:
    """Apply a function to blocks of columns.

    Args:
      function: of a pytree [k, ...] to (sums, outputs).
      columns: pytree of [m, ...] arrays.
      size: columns of a block, at most.
      axis: axis of the devices, if this runs on one device's own columns.
      multiple: of which the columns of a block are one.

    Returns:
      The sums of the sums, and the outputs one after another. Derivatives compute
      each block anew (`jax.checkpoint`).
    """
    # Inside a loop nothing of it can be merged with the forward pass anyway.
    function = jax.checkpoint(function, prevent_cse=False)
    m = jax.tree.leaves(columns)[0].shape[0]
    size = _even(m, size, multiple)
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
