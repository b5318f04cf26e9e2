"""Smooth top-k and quantiles: transport to two and to three targets."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.layers import ordering
from jaxsns.problem import arguments
from jaxsns.problem.arguments import nan_unless, usable
from jaxsns.problem.inputs import as_float


def _top_k(values, where, epsilon, tolerance, k):
    a = where.astype(values.dtype)
    count = jnp.sum(a)
    upper = jnp.asarray([0, 1], values.dtype)
    b = jnp.stack([1 - k / count, k / count])
    args = (values, a / count, upper - 0.5, b, epsilon, tolerance)
    solution = ordering.transport(*args)
    return nan_unless(usable(solution), solution.barycentric(upper)), solution


def _quantile(values, weights, epsilon, tolerance, q, width):
    a = weights / jnp.sum(weights)
    if width is None:
        width = 1 / jnp.sum(a > 0, dtype=a.dtype)
    targets = jnp.asarray([-1, 0, 1], values.dtype)

    def level(q):
        start = jnp.clip(q - width / 2, 0, 1 - width)
        b = jnp.stack([start, width, jnp.maximum(1 - width - start, 0)])
        solution = ordering.transport(values, a, targets, b, epsilon, tolerance)
        mean = solution.barycentric(values, axis=0)[1]
        # The slice is cut off at the ends, which would hide a level out of range.
        ok = usable(solution) & (q >= 0) & (q <= 1) & (width > 0)
        return nan_unless(ok, mean), solution

    return level(q) if q.ndim == 0 else jax.vmap(level)(q)


@hints.answered
def soft_top_k(
    values: ArrayLike,
    k: ArrayLike,
    *,
    epsilon: ArrayLike = ordering.DEFAULT_EPSILON,
    axis: int = -1,
    where: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    return_solution: bool = False,
):
    """Smooth indicator of the k largest values.

    It is sigmoid((2 z_i - t) / epsilon) of the standardised values z, with t such
    that the sum is k. Small epsilon gives 0 and 1, large k / n everywhere; values
    without `where` give 0.

    Args:
      values: [..., n] real numbers, in any unit.
      k: [] from 0 to the number of values that count; data, it may be traced and
        need not be whole.
      epsilon: [] regularisation > 0, relative to the variance of the values.
      axis: the axis to choose along; the others are a batch.
      where: [..., n] bool, the values that count; all if None.
      tolerance: [] as in `solve`.
      return_solution: as in `soft_sort`; the solution is n x 2.

    Returns:
      [..., n] between 0 and 1, sum k up to n times the marginal error. Failures as in
      `soft_sort`.

    Cost: one solve of n x 2 a row of numbers.
    """
    args = ordering.prepare(values, axis, where, epsilon, tolerance)
    k = arguments.as_scalar("k", k, args[0].dtype)
    arguments.holds(
        lambda xp, k, w: (k >= 0) & xp.all(k <= xp.sum(w, axis=-1, dtype=k.dtype)),
        lambda: f"k must be from 0 to the number of values that count; got {k}",
        k,
        args[1],
    )
    out = ordering.along(_top_k, bool(return_solution), *args, k)
    return ordering.axis_back(out, axis, return_solution)


@hints.answered
def soft_quantile(
    values: ArrayLike,
    q: ArrayLike,
    *,
    epsilon: ArrayLike = ordering.DEFAULT_EPSILON,
    axis: int = -1,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    width: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    return_solution: bool = False,
):
    """Smooth quantiles: the mean of the values around a level of mass.

    The values are moved to three bins: below, around and above the level.
    With equal weights and the default width the limit of small epsilon is
    `np.quantile(values, q, method="hazen")`; large epsilon gives the mean.

    Args:
      values: [..., n] real numbers, in any unit.
      q: [] or [k] levels from 0 to 1.
      epsilon: [] regularisation > 0, relative to the variance of the values: they
        are blurred over about epsilon of their standard deviation.
      axis: the axis of the values; the others are a batch.
      where: [..., n] bool, the values that count; all if None.
      weights: [..., n] masses >= 0 of the values; equal if None.
      width: [] share of the mass that is averaged, in (0, 1]; None: 1 / n, of the
        values that have a mass. More is smoother; 1 - 2 t at q = 1/2 is the mean
        after trimming t at both ends.
      tolerance: [] as in `solve`.
      return_solution: return (result, solution); its batch axes end with
        that of q.

    Returns:
      q.shape + [...] as in NumPy. Failures as in `soft_sort`.

    Cost: one solve of n x 3 a level and row of numbers.
    """
    numbers, counted, epsilon, tolerance = ordering.prepare(
        values, axis, where, epsilon, tolerance
    )
    dtype = numbers.dtype
    mass = counted.astype(dtype)
    if weights is not None:
        given = as_float("weights", weights)
        if given.ndim != numbers.ndim:
            raise ValueError(
                f"weights must have the shape of values; got {given.shape}"
            )
        given = jnp.moveaxis(given, axis, -1).astype(dtype)
        if given.shape != numbers.shape:
            raise ValueError(
                f"weights must have the shape of values; got {jnp.shape(weights)}"
            )
        mass = jnp.where(counted, given, 0)
        arguments.holds(
            lambda xp, x: (
                xp.all(xp.isfinite(x) & (x >= 0)) & xp.all(xp.sum(x, axis=-1) > 0)
            ),
            lambda: "weights must be finite, >= 0 and not all zero",
            mass,
        )
    levels = as_float("q", q).astype(dtype)
    if levels.ndim > 1:
        raise ValueError(f"q must have shape [] or [k]; got {levels.shape}")
    arguments.holds(
        lambda xp, q: xp.all((q >= 0) & (q <= 1)),
        lambda: f"q must be from 0 to 1; got {q}",
        levels,
    )
    if width is not None:
        width = arguments.as_scalar("width", width, dtype)
        arguments.holds(
            lambda xp, w: (w > 0) & (w <= 1),
            lambda: f"width must be in (0, 1]; got {width}",
            width,
        )
    args = (numbers, mass, epsilon, tolerance, levels, width)
    out = ordering.along(_quantile, bool(return_solution), *args)
    if levels.ndim == 0:
        return out
    if return_solution:
        return jnp.moveaxis(out[0], -1, 0), out[1]
    return jnp.moveaxis(out, -1, 0)
