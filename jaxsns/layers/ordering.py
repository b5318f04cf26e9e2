"""What sorting, ranking, quantiles and top-k share: transport to sorted targets.

The values of a row of numbers, standardised to mean 0 and variance 1, are moved to
increasing targets at squared cost. In one dimension the unregularised plan is the
monotone one, so it sorts; with epsilon it is a smooth function of the values.
Standardising makes epsilon free of units: values c x + t with c > 0 give the plan
of x. Values that are all equal have no scale: the plan is then uniform and its
derivative is taken as zero.
Source: Cuturi, Teboul, Vert, "Differentiable ranking and sorting using optimal
transport", NeurIPS 2019.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Dense
from jaxsns.problem import arguments
from jaxsns.problem.arguments import nan_unless
from jaxsns.problem.inputs import as_float
from jaxsns.solution import Solution
from jaxsns.solver import solve

DEFAULT_EPSILON = 0.01  # of the variance of the values [D28]


def _standardised(values: jax.Array, a: jax.Array) -> jax.Array:
    """[n] values with mean 0 and variance 1 under the masses a; 0 if all are equal."""
    real = a > 0
    low = jnp.min(jnp.where(real, values, jnp.inf))
    extent = jnp.max(jnp.where(real, values, -jnp.inf)) - low
    # Mean and variance below take these out again, so they need no derivative: they
    # keep close values from cancelling and large ones from overflowing.
    low, extent = jax.lax.stop_gradient((low, extent))
    moved = jnp.where(real, values - low, 0) / jnp.where(extent > 0, extent, 1)
    centred = moved - jnp.sum(a * moved)
    variance = jnp.sum(a * centred**2)
    spread = real & (variance > 0) & (extent > 0)
    out = centred * jax.lax.rsqrt(jnp.where(variance > 0, variance, 1))
    # Without a mass the value must not count, however far it is.
    return nan_unless(jnp.isfinite(extent), jnp.where(spread, out, 0))


def transport(values, a, targets, b, epsilon, tolerance) -> Solution:
    """Solve from values [n] of masses a to targets [m] of masses b."""
    cost = (_standardised(values, a)[:, None] - targets[None, :]) ** 2
    return solve(Dense(cost), a, b, epsilon=epsilon, tolerance=tolerance)


@functools.partial(jax.jit, static_argnums=(0, 1))
def along(
    function: Callable,
    return_solution: bool,
    values: jax.Array,
    weights: jax.Array,
    *numbers: Any,
):
    """Apply a function of [n] and [n] to the last axis of [..., n]."""

    def one(values, weights):
        # What does not count may be anything, NaN as well.
        real = weights if weights.dtype == jnp.bool_ else weights > 0
        out = function(jnp.where(real, values, 0), weights, *numbers)
        return out if return_solution else out[0]

    for _ in values.shape[:-1]:
        one = jax.vmap(one)
    return one(values, weights)


def prepare(values: Any, axis: Any, where: Any, epsilon: Any, tolerance: Any):
    """Checked values and mask with the axis last, and the numbers in their dtype."""
    values = as_float("values", values)
    if control.is_divided(values):
        raise TypeError(
            "values must not be divided along Explicit axes of a mesh as one array; "
            "use jax.vmap over the batch, which may be, or a mesh with Auto axes"
        )
    if values.ndim == 0 or values.size == 0:
        raise ValueError(
            f"values must have an axis and be non-empty; got {values.shape}"
        )
    if not isinstance(axis, int) or not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis must be an axis of values {values.shape}; got {axis!r}")
    where = arguments.as_mask("where", where, values.shape)
    arguments.holds(
        lambda xp, v, w: xp.all(xp.isfinite(v) | ~w),
        lambda: "values must be finite where they count; got NaN or infinity",
        values,
        where,
    )
    arguments.holds(
        lambda xp, w: xp.all(xp.any(w, axis=axis)),
        lambda: "where must leave at least one value",
        where,
    )
    epsilon = arguments.as_scalar("epsilon", epsilon, values.dtype)
    arguments.positive("epsilon", epsilon)
    if tolerance is not None:
        tolerance = arguments.as_scalar("tolerance", tolerance, values.dtype)
        arguments.positive("tolerance", tolerance)
    values, where = (jnp.moveaxis(x, axis, -1) for x in (values, where))
    return values, where, epsilon, tolerance


def axis_back(out, axis: int, return_solution: bool):
    """Return what `along` gave with the axis where it was."""
    if return_solution:
        return jnp.moveaxis(out[0], -1, axis), out[1]
    return jnp.moveaxis(out, -1, axis)
