"""Powers of two: units in which products and quotients are exact.

What is linear or homogeneous is computed in units of its own size. A power of two as
unit changes no digit, so results do not depend on the unit of the input. They are made
from the bits of their exponent: an exponential function need not be exact [D32].
"""

import jax
import jax.numpy as jnp


def _layout(dtype: jnp.dtype) -> tuple[jnp.dtype, int, int]:
    """Integer type of the same size, bits of the mantissa, bias of the exponent."""
    info = jnp.finfo(dtype)
    integers = jnp.int64 if info.bits == 64 else jnp.int32
    return jnp.dtype(integers), info.nmant, int(info.maxexp) - 1


def _exponent(size: jax.Array) -> jax.Array:
    """[...] int32 floor of log2 of a number > 0; 0 for 0, NaN and infinity."""
    integers, mantissa, bias = _layout(size.dtype)
    bits = jax.lax.bitcast_convert_type(size, integers) >> mantissa
    exponent = bits.astype(jnp.int32) - bias
    return jnp.where((size > 0) & jnp.isfinite(size), exponent, 0)


def _power(exponent: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """2^exponent; the least or the largest normal power where it is none."""
    integers, mantissa, bias = _layout(dtype)
    biased = jnp.clip(exponent + bias, 1, 2 * bias).astype(integers)
    return jax.lax.bitcast_convert_type(biased << mantissa, dtype)


def _largest(a: jax.Array, axis: tuple[int, ...] | None) -> jax.Array:
    return jnp.max(jnp.abs(jax.lax.stop_gradient(a)), axis=axis)


def power_of_two(a: jax.Array) -> jax.Array:
    """[] largest power of two up to the largest |entry|; 1 for 0, NaN and infinity.

    No derivative.
    """
    return _power(_exponent(_largest(a, None)), a.dtype)


def half_exponent(a: jax.Array, axis: tuple[int, ...] | None = None) -> jax.Array:
    """int32 k with 4^k <= largest |entry| < 4^(k + 1), over `axis` or all.

    0 where that is 0 or not finite. 2^k is a unit for roots of `a`.
    """
    return _exponent(_largest(a, axis)) // 2


def shifted(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """X 2^exponent: exact while this and half of the way to it are normal numbers."""
    half = exponent // 2
    return x * _power(half, x.dtype) * _power(exponent - half, x.dtype)
