"""The largest entries of long rows, faster than `jax.lax.top_k` on a CPU."""

import math

import jax
import jax.numpy as jnp


def top_k(values: jax.Array, k: int) -> jax.Array:
    """[rows, k] int32 places of the k largest entries of [rows, n], largest first.

    The k largest lie in the k groups of largest maxima, so a sweep over the row and
    two short `top_k` do: 12 times less to sort for n = 20,000 and k = 32. Exact up to
    ties. Groups are strided, as neighbours tend to be large together [D25].
    """
    rows, n = values.shape
    groups = math.isqrt(n * k)
    if n <= 8 * k or groups <= k:
        return jax.lax.top_k(values, k)[1]
    length = -(-n // groups)
    padded = jnp.pad(
        values, ((0, 0), (0, length * groups - n)), constant_values=-jnp.inf
    )
    table = padded.reshape(rows, length, groups)
    chosen = jax.lax.top_k(jnp.max(table, axis=1), k)[1]  # [rows, k] groups
    inside = jnp.take_along_axis(table, chosen[:, None, :], axis=2)  # [rows, length, k]
    place = jax.lax.top_k(inside.reshape(rows, -1), k)[1]
    line, group = place // k, place % k
    out = line * groups + jnp.take_along_axis(chosen, group, axis=1)
    return jnp.minimum(out, n - 1).astype(jnp.int32)
