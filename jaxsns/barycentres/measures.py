"""K measures, the cost of moving each to one support, and passes over their plans.

Where all measures share one cost matrix, it is kept once. Whatever needs a plan forms
a few at a time, so that memory does not grow with the number of measures times the
size of the matrix.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.problem.problem import Problem

AT_ONCE = 2**22  # entries of all plans that are formed together: 32 MB in float64 [D26]


class Measures(NamedTuple):
    """K measures and what it costs to move them to one support, arrays of one dtype."""

    costs: jax.Array  # [n, m] shared by all measures, or [K, n, m]
    masses: jax.Array  # [K, n], equal totals, some may be zero
    weights: jax.Array  # [K], total 1
    epsilon: jax.Array  # []

    @property
    def shared(self) -> bool:
        """Whether all measures have the same cost."""
        return self.costs.ndim == 2


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """[m] sum_k w_k v_k of values [K, m]."""
    return jnp.sum(weights[:, None] * values, axis=0)


def over_measures(function: Callable[..., Any], entries: int, arrays: Any) -> Any:
    """Apply a function to each element of arrays [K, ...], a few at a time.

    entries: numbers that one application forms. In a derivative they are formed again
    rather than kept. One `vmap` where all fit into AT_ONCE.
    """
    number = jax.tree.leaves(arrays)[0].shape[0]
    batch = max(1, AT_ONCE // entries)
    if batch >= number:
        return jax.vmap(function)(*arrays)
    again = jax.checkpoint(function)
    size = batch if batch > 1 else None
    return jax.lax.map(lambda x: again(*x), arrays, batch_size=size)


def each(
    function: Callable[..., Any],
    measures: Measures,
    mass: jax.Array,
    f: jax.Array,
    g: jax.Array,
    *more: jax.Array,
) -> Any:
    """Apply a function of (problem, f, g, ...), as in `dual`, to all K of them."""
    epsilon, (n, m) = measures.epsilon, measures.costs.shape[-2:]

    def one(cost, masses, f, g, *more):
        return function(Problem(Dense(cost), masses, mass, epsilon), f, g, *more)

    if measures.shared:
        cost = measures.costs
        arrays = (measures.masses, f, g, *more)
        return over_measures(lambda *x: one(cost, *x), n * m, arrays)
    return over_measures(one, n * m, (measures.costs, measures.masses, f, g, *more))
