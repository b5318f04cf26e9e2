"""Problems of different sizes in one batch: padding with atoms of no mass.

An atom without mass changes nothing of the others, so a padded problem has the same
answer; only shapes have to be equal under `vmap`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def pad(
    arrays: Sequence[Any], length: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Stack arrays of different lengths, filled up with zeros.

    Args:
      arrays: k arrays [n_i, ...] that agree in all but the first axis and in dtype.
      length: N, at least the largest n_i, which it is if None. Round it up to a
        multiple of your choice, so that few shapes are compiled.

    Returns:
      ([k, N, ...] stacked, [k, N] bool mask, True where there is an atom).

    Raises:
      ValueError: no arrays, shapes that do not fit, a length that is too small.
    """
    hosts = [np.asarray(x) for x in arrays]
    if not hosts:
        raise ValueError("arrays must hold at least one array; got none")
    rest = {x.shape[1:] for x in hosts if x.ndim} if all(x.ndim for x in hosts) else {}
    if len(rest) != 1:
        raise ValueError(
            "arrays must agree in all but their first axis; got shapes "
            f"{[x.shape for x in hosts]}"
        )
    longest = max(len(x) for x in hosts)
    length = longest if length is None else length
    if length < longest:
        raise ValueError(f"length must be at least {longest}; got {length}")
    out = np.zeros((len(hosts), length, *hosts[0].shape[1:]), np.result_type(*hosts))
    mask = np.zeros((len(hosts), length), bool)
    for row, keep, x in zip(out, mask, hosts, strict=True):
        row[: len(x)], keep[: len(x)] = x, True
    return jnp.asarray(out), jnp.asarray(mask)


def masses(mask: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """[..., N] masses with total 1 along the last axis, none where the mask is False.

    Proportional to weights [..., N] >= 0, or uniform. A lane without any atom gets
    no mass, and its solve the status INVALID_INPUT.
    """
    dtype = jnp.result_type(float) if weights is None else weights.dtype
    raw = mask.astype(dtype) if weights is None else jnp.where(mask, weights, 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    return raw / jnp.where(total > 0, total, 1)
