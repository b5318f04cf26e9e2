"""Maxima of the columns of a matrix that is made as it is read."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control

ROWS = 8  # at a time [D20]
SMALL = 2**16  # entries, up to which a loop costs more than it saves [D20]


def maxima(function: Callable[..., Any], *arrays: jax.Array) -> Any:
    """[m] maxima over the rows of function(*arrays), which maps rows to [rows, m].

    It may return several matrices. On a CPU it is a loop over a few rows: XLA writes
    the whole matrix first otherwise, and reduces it in twice the time or more [D20].
    """
    n = arrays[0].shape[0]

    def largest(*rows: jax.Array) -> Any:
        return jax.tree.map(lambda x: jnp.max(x, axis=0), function(*rows))

    def few_rows(*arrays: jax.Array) -> Any:
        def more(i: jax.Array, most: Any) -> Any:
            start = jnp.minimum(i * ROWS, n - ROWS)  # the last rows may be read twice
            rows = (jax.lax.dynamic_slice_in_dim(x, start, ROWS) for x in arrays)
            return jax.tree.map(jnp.maximum, most, largest(*rows))

        first = largest(*(x[:ROWS] for x in arrays))
        return control.fori_loop(1, -(-n // ROWS), more, first)

    if n <= max(ROWS, SMALL // _width(function, *arrays)):
        return largest(*arrays)
    return control.platform_dependent(*arrays, cpu=few_rows, default=largest)


def _width(function: Callable[..., Any], *arrays: jax.Array) -> int:
    """Columns of what the function gives."""
    return jax.tree.leaves(jax.eval_shape(function, *arrays))[0].shape[1]
