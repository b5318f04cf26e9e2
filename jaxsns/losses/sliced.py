"""Sliced transport: exact transport of projections on lines, by sorting.

On a line the optimal plan joins quantiles. Let A and B be the cumulated masses in the
order of the projections, and Q_x and Q_y the quantile functions, which are steps there.
Then W_p^p is the integral of |Q_x - Q_y|^p, a sum over the pieces between the values of
A and B. The mean target of an atom is the mean of Q_y over its own piece of A.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.numerics import matmul
from jaxsns.problem import arguments
from jaxsns.problem.checks import coarseness, mass_slack
from jaxsns.problem.inputs import as_float, same_totals


def _sorted(values: jax.Array, mass: jax.Array):
    """Values in their order, their cumulated masses (last: the total), the order."""
    order = jnp.argsort(values)
    cumulated = jnp.cumsum(mass[order])
    return values[order], cumulated, order


def _distance(x: jax.Array, a: jax.Array, y: jax.Array, b: jax.Array, p: jax.Array):
    """[] W_p^p of masses a and b at numbers x [n] and y [m]."""
    x, to_x, _ = _sorted(x, a)
    y, to_y, _ = _sorted(y, b)
    levels = jnp.sort(jnp.concatenate([to_x, to_y]))
    widths = jnp.diff(levels, prepend=0)
    # A piece ends at its level; rounding must not reach beyond the last atom.
    at = lambda values, to: values[
        jnp.minimum(jnp.searchsorted(to, levels, side="left"), values.shape[0] - 1)
    ]
    gaps = jnp.abs(at(x, to_x) - at(y, to_y))
    some = ~((gaps <= 0) | (widths <= 0))  # and so NaN stays
    return jnp.sum(jnp.where(some, widths * jnp.where(some, gaps, 1) ** p, 0))


def _target(x: jax.Array, a: jax.Array, y: jax.Array, b: jax.Array) -> jax.Array:
    """[n] mean of the numbers that each x is joined with; its own without mass."""
    x, to_x, order = _sorted(x, a)
    y, to_y, _ = _sorted(y, b)
    zero = jnp.zeros((1,), x.dtype)
    levels = jnp.concatenate([zero, to_y])
    integral = jnp.concatenate([zero, jnp.cumsum(jnp.diff(levels) * y)])
    ends = jnp.interp(jnp.concatenate([zero, to_x]), levels, integral)
    mass = a[order]
    mean = jnp.diff(ends) / jnp.where(mass > 0, mass, 1)
    return jnp.zeros_like(x).at[order].set(jnp.where(mass > 0, mean, x))


def _clouds(x: Any, y: Any, a: Any, b: Any):
    x, y = as_float("x", x), as_float("y", y)
    for name, points in (("x", x), ("y", y)):
        if points.ndim != 2 or points.size == 0:
            raise ValueError(
                f"{name} must have shape [points, dimension], not empty; "
                f"got {points.shape} (a batch: jax.vmap)"
            )
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must have the same dimension; got x {x.shape} and y {y.shape}"
        )
    dtype = jnp.result_type(x.dtype, y.dtype)
    coarse = coarseness(a), coarseness(b)
    masses = []
    for name, mass, points in (("a", a, x), ("b", b, y)):
        size = points.shape[0]
        if mass is None:
            masses.append(jnp.full((size,), 1 / size, dtype))
            continue
        mass = as_float(name, mass)
        if mass.shape != (size,):
            raise ValueError(f"{name} must have shape [{size}]; got {mass.shape}")
        masses.append(mass.astype(dtype))
    if max(coarse) > 0:
        masses = list(same_totals(masses[0], masses[1], coarse))
    slack = mass_slack(dtype, x.shape[0], y.shape[0])
    fine = arguments.holds(
        lambda xp, a, b: (
            xp.all(xp.isfinite(a) & (a >= 0))
            & xp.all(xp.isfinite(b) & (b >= 0))
            & (xp.sum(a) > 0)
            & (abs(xp.sum(a) - xp.sum(b)) <= slack * xp.sum(a))
        ),
        lambda: "a and b must hold finite masses >= 0 of equal totals > 0",
        *masses,
    )
    a, b = masses
    return x.astype(dtype), y.astype(dtype), arguments.nan_unless(fine, a), b


def _directions(key: Any, directions: Any, number: int, like: jax.Array) -> jax.Array:
    """[k, d] of length 1."""
    d = like.shape[1]
    if (key is None) == (directions is None):
        raise ValueError("give either key, to draw directions, or directions")
    if directions is None:
        number = arguments.as_count("number", number)
        key = arguments.as_key("key", key)
        directions = jax.random.normal(key, (number, d), like.dtype)
    directions = as_float("directions", directions).astype(like.dtype)
    if directions.ndim != 2 or directions.shape[1] != d or directions.size == 0:
        raise ValueError(
            f"directions must have shape [k, {d}], not empty; got {directions.shape}"
        )
    return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)


@jax.jit
def _mean_distance(x, y, a, b, directions, p):
    x, y = matmul(directions, x.T), matmul(directions, y.T)
    one = functools.partial(_distance, a=a, b=b, p=p)
    return jnp.mean(jax.vmap(lambda x, y: one(x=x, y=y))(x, y))


@jax.jit
def _mean_map(x, y, a, b, directions):
    along = matmul(directions, x.T)
    targets = jax.vmap(lambda x, y: _target(x, a, y, b))(along, matmul(directions, y.T))
    k, d = directions.shape
    return x + matmul((targets - along).T, directions) * (d / k)


@hints.answered
def sliced_wasserstein(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    key: ArrayLike | None = None,
    directions: ArrayLike | None = None,
    number: int = 64,
    p: ArrayLike = 2.0,
) -> jax.Array:
    """Sliced Wasserstein distance to the power p: a mean over directions.

    Each cloud is projected on lines, where transport is exact and needs a sort.

    Args:
      x: [n, d] points.
      y: [m, d] points.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0 of the same total; uniform if None.
      key: of `jax.random`, to draw directions; the value is an estimate.
      directions: [k, d] instead of a key; they are normalised.
      number: of directions to draw, static.
      p: [] power >= 1.

    Returns:
      [] mean over the directions of W_p^p of the projections, in length^p times mass;
      >= 0. Differentiable almost everywhere in points, and in masses, in both modes.
      NaN for traced masses that are bad.

    Raises:
      TypeError, ValueError: a wrong type or shape; bad masses, or p < 1, if they are
        not traced.

    Cost: O(k (n + m) (d + log(n + m))) time, O(k (n + m)) memory; no iteration.
    Source: Rabin, Peyre, Delon, Bernot (2011); Bonneel et al. (2015).

    >>> import jax, jax.numpy as jnp
    >>> x = jax.random.normal(jax.random.key(0), (50, 1))
    >>> round(float(sliced_wasserstein(x, x + 2.0, key=jax.random.key(1))), 3)
    4.0
    """
    clouds = _clouds(x, y, a, b)
    power = arguments.as_scalar("p", p, clouds[0].dtype)
    fine = arguments.holds(
        lambda xp, p: xp.isfinite(p) & (p >= 1),
        lambda: f"p must be at least 1; got {p}",
        power,
    )
    lines = _directions(key, directions, number, clouds[0])
    return _mean_distance(*clouds, lines, arguments.nan_unless(fine, power))


def sliced_map(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    key: ArrayLike | None = None,
    directions: ArrayLike | None = None,
    number: int = 64,
) -> jax.Array:
    """[n, d] points x moved towards y: one step along all directions at once.

    Along each direction a point moves to the mean of what its projection is joined
    with; moves are averaged and multiplied by d, so that a translation is found. It is
    x - d/2 times the gradient of `sliced_wasserstein` (p = 2) over the masses. Repeated
    with new directions, the points become a sample like y.

    Args, failures, cost: as in `sliced_wasserstein`. Points without mass stay.
    """
    clouds = _clouds(x, y, a, b)
    lines = _directions(key, directions, number, clouds[0])
    return _mean_map(*clouds, lines)
