"""Checks that the functions around a solve share.

A wrong shape, type or name raises always; a bad value raises if it is known, and
is handed on as a flag if it is traced, for the caller to turn into NaN or -1.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.problem.inputs import as_float
from jaxsns.status import Status, code


def as_mask(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    """`value` as booleans of a shape; all true if None."""
    if value is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(value)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"{name} must be boolean; got dtype {mask.dtype}")
    if mask.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}; got {mask.shape}")
    return mask


def as_scalar(name: str, value: Any, dtype: jnp.dtype) -> jax.Array:
    """`value` as a scalar of a dtype."""
    array = as_float(name, value)
    if array.shape != ():
        raise ValueError(f"{name} must be a scalar; got shape {array.shape}")
    return array.astype(dtype)


def as_count(name: str, value: Any, most: int | None = None) -> int:
    """`value` as a static integer from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a Python integer; got {type(value).__name__}")
    largest = int(jnp.iinfo(jnp.int32).max) if most is None else most
    if not 1 <= value <= largest:
        low = value < 1 and most is None
        limit = "at least 1" if low else f"from 1 to {largest}"
        raise ValueError(f"{name} must be {limit}; got {value}")
    return int(value)


def as_bool(name: str, value: Any) -> bool:
    """`value` as a static boolean."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def as_key(name: str, value: Any) -> jax.Array:
    """`value` if it is a key of `jax.random`, of one draw."""
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    # Keys of `jax.random.PRNGKey` are plain numbers.
    old = dtype == jnp.uint32 and len(shape or ()) == 1
    if not old and not (new and shape == ()):
        raise TypeError(
            f"{name} must be one key of jax.random, such as jax.random.key(0); got "
            f"{type(value).__name__}"
        )
    return value


def as_axis(axis: Any) -> int:
    """Refuse an axis of a plan that is neither 0 nor 1."""
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 or 1; got {axis!r}")
    return int(axis)


def holds(test: Callable, message: Callable[[], str], *arrays: jax.Array) -> jax.Array:
    """[] bool: `test(xp, *arrays)`; raise ValueError if it is known to be false."""
    if any(isinstance(x, Tracer) for x in arrays):
        return test(jnp, *arrays)
    # NumPy, since inside jit even a function of constants would be traced.
    if not test(np, *[np.asarray(x) for x in arrays]):
        raise ValueError(message())
    return jnp.asarray(True)


def positive(name: str, value: jax.Array) -> jax.Array:
    """[] bool: a scalar is positive and finite; raise if it is known not to be."""
    return holds(
        lambda xp, x: xp.isfinite(x) & (x > 0),
        lambda: f"{name} must be positive and finite; got {value}",
        value,
    )


def nan_unless(ok: jax.Array, x: jax.Array) -> jax.Array:
    """Return x, or NaN if not `ok`, in the derivatives as well."""
    # 1 / 1 or 0 / 0: `vmap` along Explicit axes of a mesh takes no select of constants.
    one = jnp.asarray(ok).astype(x.dtype)
    return x * (one / one)


# [D35]
LARGEST_ERROR = 1e-3  # marginal error, relative to the mass, up to which results count


def usable(*solutions: Any) -> jax.Array:
    """[...] bool: results of these solutions mean something, element by element.

    A solve that converged counts, whatever its tolerance; one that stalled or ran out
    of steps counts if its marginal error is at most `LARGEST_ERROR`. In float32 many
    good solves stall at the precision of the dtype. Invalid input, unequal totals,
    infeasible problems and numbers that are not finite never count.
    """
    known = []
    for solution in solutions:
        status, small = solution.status, solution.error <= LARGEST_ERROR
        ended = (status == code(Status.STALLED)) | (status == code(Status.MAX_STEPS))
        known.append((status == code(Status.CONVERGED)) | (ended & small))
    return functools.reduce(jnp.logical_and, known)
