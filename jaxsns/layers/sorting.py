"""Smooth sorting and ranking: transport to evenly spaced targets."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.layers import ordering
from jaxsns.problem.arguments import nan_unless, usable


def _to_grid(values, where, epsilon, tolerance):
    """Transport to as many evenly spaced targets as there are real values."""
    count = jnp.sum(where, dtype=values.dtype)
    position = jnp.arange(values.shape[0], dtype=values.dtype)
    variance = (count**2 - 1) / 12
    scale = jax.lax.rsqrt(jnp.where(variance > 0, variance, 1))
    inside = position < count
    targets = jnp.where(inside, (position - (count - 1) / 2) * scale, 0)
    a, b = (x.astype(values.dtype) / count for x in (where, inside))
    return ordering.transport(values, a, targets, b, epsilon, tolerance), position


def _sort(values, where, epsilon, tolerance):
    solution, _ = _to_grid(values, where, epsilon, tolerance)
    out = nan_unless(usable(solution), solution.barycentric(values, axis=0))
    return jnp.where(solution.problem.b > 0, out, jnp.nan), solution


def _rank(values, where, epsilon, tolerance):
    solution, position = _to_grid(values, where, epsilon, tolerance)
    out = nan_unless(usable(solution), solution.barycentric(position, axis=1))
    return jnp.where(where, out, jnp.nan), solution


@hints.answered
def soft_sort(
    values: ArrayLike,
    *,
    epsilon: ArrayLike = ordering.DEFAULT_EPSILON,
    axis: int = -1,
    where: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    return_solution: bool = False,
):
    """Smooth version of `jnp.sort`, ascending.

    Args:
      values: [..., n] real numbers, in any unit.
      epsilon: [] regularisation > 0, relative to the variance of the values: they
        are blurred over about sqrt(epsilon / 2) of their standard deviation. Small
        (below 1 / n^2) sorts; large returns the mean everywhere.
      axis: the axis to sort along; the others are a batch.
      where: [..., n] bool, the values that count; all if None. The others may be
        anything. The sorted ones come first and NaN fills the rest.
      tolerance: [] as in `solve`. Rounding leaves a marginal error of about a tenth
        of the unit roundoff over epsilon: below epsilon = 1e-3 in float32 and 1e-6
        in float64 the default may be out of reach. The status is then STALLED, and
        the result is still given if the marginal error is at most 1e-3.
      return_solution: return (result, solution), for the status, plan and work; a
        batch has its axes in front, the sorted axis is the plan's.

    Returns:
      [..., n] in the unit of values, each a mean of them; their total is that of
      the values. Differentiable in values and epsilon. NaN, with NaN derivatives,
      where a traced input is bad or the solve ends with a marginal error above 1e-3,
      unless that is within an explicit tolerance.

    Raises:
      TypeError, ValueError: a wrong type or shape always; values that are not
        finite, epsilon <= 0 or an empty mask if they are not traced.

    Cost: one solve of n x n a row of numbers.
    Source: Cuturi, Teboul, Vert, NeurIPS 2019.
    """
    args = ordering.prepare(values, axis, where, epsilon, tolerance)
    out = ordering.along(_sort, bool(return_solution), *args)
    return ordering.axis_back(out, axis, return_solution)


@hints.answered
def soft_rank(
    values: ArrayLike,
    *,
    epsilon: ArrayLike = ordering.DEFAULT_EPSILON,
    axis: int = -1,
    where: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    return_solution: bool = False,
):
    """Smooth version of `jnp.argsort(jnp.argsort(values))`: ranks 0 to n - 1.

    The largest value has the largest rank; equal ones share the mean of theirs.
    Large epsilon gives (n - 1) / 2 everywhere. Values without `where` are not
    ranked: NaN stands there.

    Args, failures, cost and source: as in `soft_sort`.

    Returns:
      [..., n] ranks, and the solution if asked for.
    """
    args = ordering.prepare(values, axis, where, epsilon, tolerance)
    out = ordering.along(_rank, bool(return_solution), *args)
    return ordering.axis_back(out, axis, return_solution)
