"""What exact transport reads of a cost matrix, in which +inf forbids a pair."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import machine_epsilon

ROUNDING = 4  # machine epsilons of the largest cost: a reduced cost below it is 0 [D46]

# Relative gap that counts as converged, in float64 and in float32 [D46].
GAP, GAP_SINGLE = 1e-6, 1e-4


class Least(NamedTuple):
    """Least entry of each column, and the row where it is."""

    value: jax.Array  # [m] inf where there is none
    row: jax.Array  # [m] int32


def least(function: Callable, active: jax.Array, *arrays: jax.Array) -> Least:
    """Least entries over the active rows of function(*arrays), [rows, m].

    On a CPU only rows that are active [n] are read, one at a time; elsewhere all.
    """
    n = active.shape[0]
    number = jnp.arange(n, dtype=jnp.int32)

    def all_rows(active: jax.Array, *arrays: jax.Array) -> Least:
        values = jnp.where(active[:, None], function(*arrays), jnp.inf)
        low = jnp.min(values, axis=0)
        first = jnp.where(values == low[None, :], number[:, None], n)
        return Least(low, jnp.min(first, axis=0))

    def one_by_one(active: jax.Array, *arrays: jax.Array) -> Least:
        order = jnp.where(active, jnp.cumsum(active, dtype=jnp.int32) - 1, n)
        order = jnp.zeros((n,), jnp.int32).at[order].set(number, mode="drop")

        def more(k: jax.Array, low: Least) -> Least:
            row = order[k]
            one = (jax.lax.dynamic_slice_in_dim(x, row, 1) for x in arrays)
            values = function(*one)[0]
            better = values < low.value
            return Least(
                jnp.where(better, values, low.value), jnp.where(better, row, low.row)
            )

        shape = jax.eval_shape(all_rows, active, *arrays)
        none = Least(
            jnp.full(shape.value.shape, jnp.inf, shape.value.dtype),
            jnp.full(shape.row.shape, n, jnp.int32),
        )
        count = jnp.sum(active, dtype=jnp.int32)
        return control.fori_loop(jnp.zeros_like(count), count, more, none)

    return control.platform_dependent(active, *arrays, cpu=one_by_one, default=all_rows)


def first_least(values: jax.Array) -> jax.Array:
    """[] int32 index of the first least of the values [k].

    XLA's argmin takes three times as long on a CPU [D46].
    """
    size = values.size
    place = jnp.arange(size, dtype=jnp.int32)
    first = jnp.min(jnp.where(values == jnp.min(values), place, size))
    return jnp.minimum(first, size - 1)  # all NaN


def reduced(cost: jax.Array, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] costs minus potentials; +inf where a pair is forbidden."""
    return cost - f[:, None] - g[None, :]


def largest(cost: jax.Array) -> jax.Array:
    """[] largest absolute value of a permitted cost."""
    return jnp.max(jnp.where(cost < jnp.inf, jnp.abs(cost), 0))


def rounding(cost: jax.Array) -> jax.Array:
    """[] reduced cost that counts as 0."""
    return ROUNDING * machine_epsilon(cost.dtype) * largest(cost)


def transformed(cost: jax.Array, f: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) potentials with f_i + g_j <= C_ij, by two c-transforms.

    f may be -inf. An atom that may be paired with none gets 0.
    """
    low = jnp.min(cost - f[:, None], axis=0)
    g = jnp.where(jnp.isinf(low), 0, low)
    low = jnp.min(cost - g[None, :], axis=1)
    return jnp.where(jnp.isinf(low), 0, low), g


def paid(cost: jax.Array, plan: jax.Array) -> jax.Array:
    """[] <C, P>; +inf if a forbidden pair has mass."""
    return jnp.sum(jnp.where(plan > 0, cost, 0) * plan)


def dual_value(a: jax.Array, b: jax.Array, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] <a, f> + <b, g>; an atom without mass adds 0."""
    rows = jnp.sum(a * jnp.where(a > 0, f, 0))
    return rows + jnp.sum(b * jnp.where(b > 0, g, 0))


def default_gap(dtype: jnp.dtype) -> float:
    """Relative gap that counts as converged."""
    return GAP if jnp.finfo(dtype).bits >= 64 else GAP_SINGLE


def relative_gap(
    primal: jax.Array, dual: jax.Array, magnitude: jax.Array, most: jax.Array
) -> jax.Array:
    """[] primal minus dual over the magnitude <|C|, P>, at least 0.

    Where the magnitude itself is rounding of `most`, the mass times the largest cost,
    the gap is relative to a multiple of that: a gap of a few roundings always counts
    as converged.
    """
    dtype = primal.dtype
    least = ROUNDING * machine_epsilon(dtype) / default_gap(dtype) * most
    scale = jnp.maximum(magnitude, least)
    scale = jnp.where(scale > 0, scale, 1)  # all costs are 0, and so is the gap
    gap = jnp.maximum(primal - dual, 0) / scale
    return jnp.where(primal < jnp.inf, gap, jnp.where(primal > 0, jnp.inf, jnp.nan))
