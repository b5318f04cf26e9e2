"""The only door through which inputs come in: one dtype, right shapes, a `Problem`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, Dense, Grid, PointCloud
from jaxsns.numerics import forbidden_cost, permitted_costs
from jaxsns.problem.checks import (
    check_arrays,
    check_values,
    coarseness,
    equalised,
    is_traced,
    require,
)
from jaxsns.problem.problem import Problem
from jaxsns.problem.scales import check_scale, statistic

LARGEST_GRID = 3  # axes [D22]
DEFAULT_EPSILON = 0.05  # of the standard deviation of the costs [D28]


def as_float(name: str, value: Any) -> jax.Array:
    """Array of real floating-point numbers, or a TypeError with the name."""
    try:
        # JAX would warn of some letters, which are names of dtypes to NumPy.
        array = np.asarray(value) if isinstance(value, str | bytes) else value
        array = jnp.asarray(array)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of real numbers; got {type(value).__name__}"
        ) from error
    if array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.complexfloating):
        masked = array.dtype == jnp.bool_ and name in ("a", "b")
        hint = " (masses of a mask: ragged.masses)" if masked else ""
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}{hint}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    if jnp.finfo(array.dtype).bits < 32:
        return array.astype(jnp.float32)
    return array


def _refuse_words(name: str, value: Any) -> None:
    if isinstance(value, str | bytes | bool) or value is None:
        raise TypeError(f"{name} must be a number; got {value!r}")


def require_number(name: str, value: Any) -> None:
    """Raise TypeError for what is no number, ValueError for too large an integer."""
    _refuse_words(name, value)
    if isinstance(value, int) and abs(value) > jnp.iinfo(jnp.int32).max:
        most = jnp.iinfo(jnp.int32).max
        raise ValueError(f"{name} must be at most {most}; got {value}")


def require_positive(
    name: str, value: Any, most: float = np.inf, kind: str = "positive"
) -> None:
    """Raise for what is no scalar number, or is known not to be in (0, most]."""
    _refuse_words(name, value)
    if np.shape(value) != ():
        raise ValueError(f"{name} must be a scalar; got shape {np.shape(value)}")
    if not is_traced(value):
        try:
            number = float(value)
        except TypeError as error:
            raise TypeError(
                f"{name} must be a number; got {type(value).__name__}"
            ) from error
        require(number > 0, lambda: f"{name} must be {kind}; got {value}")
        require(number <= most, lambda: f"{name} must be at most {most}; got {value}")


def as_positive(name: str, value: Any, dtype: Any) -> jax.Array:
    """`value` as a scalar of a dtype; an error if it is known not to be positive."""
    whole = jnp.issubdtype(dtype, jnp.integer)
    require_positive(name, value, jnp.iinfo(dtype).max if whole else np.inf)
    if whole and not is_traced(value) and float(value) != int(value):
        raise ValueError(f"{name} must be a whole number; got {value}")
    return jnp.asarray(value).astype(dtype)


def _as_geometry(cost: Any) -> Dense | PointCloud | Grid:
    if isinstance(cost, PointCloud):
        x, y = as_float("x", cost.x), as_float("y", cost.y)
        for name, points in (("x", x), ("y", y)):
            if points.ndim != 2:
                raise ValueError(
                    f"{name} must have shape [points, dimension]; got {points.shape}"
                )
        if x.shape[1] != y.shape[1]:
            raise ValueError(
                f"x and y must have the same dimension; got x {x.shape} and y {y.shape}"
            )
        return dataclasses.replace(cost, x=x, y=y)
    if isinstance(cost, Grid):
        return _as_grid(cost)
    matrix = as_float("cost", cost.cost if isinstance(cost, Dense) else cost)
    if matrix.ndim != 2:
        raise ValueError(
            f"cost must have shape [n, m]; got {matrix.shape} "
            "(use jax.vmap for a batch of problems)"
        )
    return Dense(matrix, pallas=isinstance(cost, Dense) and cost.pallas)


def _check_size(geometry: Any) -> None:
    """Raise for costs that could be taken for forbidden pairs, where they are known.

    Traced ones become NaN where they are read (`numerics.permitted_costs`).
    """
    if not isinstance(geometry, Dense) or is_traced(geometry.cost):
        return
    with jax.ensure_compile_time_eval():  # known costs, perhaps in a traced function
        cost = geometry.cost
        large = 0.0 if bool(_all_ordinary(cost)) else float(_too_large(cost))
    require(
        not large > 0,
        lambda: (
            f"cost must be below {1e-5 * forbidden_cost(cost.dtype):.0e} in "
            f"{cost.dtype} "
            "(+inf forbids a pair; divide costs that are meant, and epsilon, by a "
            f"number); got {large}"
        ),
    )


def _scale(name: str, geometry: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    """[] scale of the costs; raise where known costs are not finite and leave none."""
    scale = statistic(name, geometry, a, b)
    far = 1e-5 * forbidden_cost(scale.dtype)
    require(
        is_traced(scale) or not np.isnan(np.asarray(scale)),
        lambda: (
            f"costs must be finite and below {far:.0e} in {scale.dtype}; their scale "
            f"{name!r}, of which epsilon is a multiple, is nan: look at the cost "
            "function, or divide points that are far apart by a number"
        ),
    )
    return scale


@jax.jit  # outside a program its operations are compiled one by one [D49]
def placed(points: jax.Array, mass: jax.Array) -> jax.Array:
    """[n, d] points, those without mass moved to the mean of the others.

    Their costs are nobody's, but costs are computed around a centre, and padding with
    zeros far from the data would take digits of all. What is not finite stays, and is
    told.
    """
    real = (mass > 0)[:, None]
    held = jax.lax.stop_gradient(points)
    count = jnp.maximum(jnp.sum(real, dtype=points.dtype), 1)
    mean = jnp.sum(jnp.where(real, held, 0), axis=0, keepdims=True) / count
    return jnp.where(real | ~jnp.isfinite(held), points, mean)


def _without_padding(cloud: PointCloud, a: jax.Array, b: jax.Array) -> PointCloud:
    if cloud.cost not in ("sqeuclidean", "euclidean", "dot"):
        return cloud  # costs of other pairs are computed one by one
    return dataclasses.replace(cloud, x=placed(cloud.x, a), y=placed(cloud.y, b))


# Compiled, since one by one these operations took longer than all other checks.
@jax.jit
def _all_ordinary(cost: jax.Array) -> jax.Array:
    return jnp.all(jnp.abs(cost) < 1e-5 * forbidden_cost(cost.dtype))


@jax.jit
def _too_large(cost: jax.Array) -> jax.Array:
    """[] the largest finite cost that is too large, 0 if none is."""
    large = jnp.isnan(permitted_costs(cost)) & jnp.isfinite(cost)
    return jnp.max(jnp.where(large, jnp.abs(cost), 0))


def _as_axes(name: str, value: Any, rank: int) -> tuple[jax.Array, ...]:
    if not isinstance(value, tuple | list) or not 1 <= len(value) <= LARGEST_GRID:
        several = isinstance(value, tuple | list)
        got = f"{len(value)}" if several else type(value).__name__
        raise TypeError(
            f"{name} of a Grid must be a tuple of 1 to {LARGEST_GRID} arrays, one an "
            f"axis; got {got}"
        )
    arrays = tuple(as_float(f"{name}[{k}]", v) for k, v in enumerate(value))
    for k, v in enumerate(arrays):
        if v.ndim != rank or 0 in v.shape:
            shape = "[points]" if rank == 1 else "[n_k, m_k]"
            raise ValueError(f"{name}[{k}] must have shape {shape}; got {v.shape}")
    return arrays


def _as_grid(grid: Grid) -> Grid:
    factor = None if grid.factor is None else as_float("factor", grid.factor)
    if grid.matrices is not None:
        if grid.x is not None or grid.y is not None:
            raise TypeError("a Grid takes matrices or coordinates x and y, not both")
        matrices = _as_axes("matrices", grid.matrices, 2)
        return dataclasses.replace(grid, matrices=matrices, factor=factor)
    x = _as_axes("x", grid.x, 1)
    y = x if grid.y is None else _as_axes("y", grid.y, 1)
    if len(x) != len(y):
        raise ValueError(
            f"x and y of a Grid must have as many axes; got {len(x)} and {len(y)}"
        )
    return dataclasses.replace(grid, x=x, y=y, factor=factor)


def _flat(geometry: Any, side: int, name: str, value: Any) -> Any:
    """Numbers in the shape of a grid as [n]; anything else as it is."""
    if not isinstance(geometry, Grid) or value is None:
        return value
    shape, sizes = np.shape(value), geometry.sizes[side]
    if len(shape) < 2:
        return value
    if shape != sizes:
        turned = shape == sizes[::-1]
        raise ValueError(
            f"{name} must have shape [{geometry.shape[side]}] or that of the grid, "
            f"{sizes}; got {shape}" + (" (transposed?)" if turned else "")
        )
    return jnp.reshape(value, -1)


@functools.partial(jax.jit, static_argnums=0)
def _uniform(size: int, like: jax.Array) -> jax.Array:
    """[size] equal masses with the total of others."""
    return jnp.full((size,), 1 / size, like.dtype) * jnp.sum(like)


def _as_masses(name: str, value: Any, letter: str, size: int, cost_shape: Any):
    if value is None:
        return None
    masses = as_float(name, value)
    if masses.shape != (size,):
        raise ValueError(
            f"{name} must have shape [{letter}] = [{size}] to match cost "
            f"{tuple(cost_shape)}; got {masses.shape}"
            + (" (points: solve(PointCloud(x, y), a, b))" if masses.ndim == 2 else "")
        )
    return masses


def same_totals(
    a: jax.Array,
    b: jax.Array,
    coarse: tuple[float, float],
    rhos: Sequence[jax.Array | None] = (),
):
    """Masses with one total, if they differ by what a dtype below 32 bits rounds.

    coarse: `coarseness` of both as they were given. The side that is known less well
    is scaled. rhos: of both; where a marginal is penalised, the totals may differ.
    """
    totals = jnp.sum(a, keepdims=True), jnp.sum(b, keepdims=True)
    if coarse[0] > coarse[1]:
        equal = equalised(a, totals[1], sum(coarse)), b
    else:
        equal = a, equalised(b, totals[0], sum(coarse))
    for rho in rhos:
        if rho is not None:
            met = jnp.all(jnp.isinf(rho))
            equal = tuple(
                jnp.where(met, y, x) for x, y in zip((a, b), equal, strict=True)
            )
    return equal


def _as_rho(name: str, value: Any, letter: str, size: int, dtype: Any):
    """[size] weights, or None for equality; a number stands for all atoms."""
    if value is None:
        return None
    rho = as_float(name, value)
    if rho.shape not in ((), (size,)):
        raise ValueError(
            f"{name} must be a scalar or have shape [{letter}] = [{size}]; "
            f"got {rho.shape}"
        )
    if not is_traced(rho) and np.isposinf(np.asarray(rho)).all():
        return None
    return jnp.broadcast_to(rho.astype(dtype), (size,))


@hints.answered
def make_problem(
    cost: CostLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike | None = None,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    relative_to: str | None = None,
    scale_cost: str | None = None,
) -> Problem:
    """Check the inputs and put them into one dtype.

    Args:
      cost: [n, m] costs, or a geometry (`Dense`, `PointCloud`, `Grid`); +inf forbids
        a pair, except on a `Grid`.
      a: [n] masses >= 0 of the rows; uniform with total 1 if None.
      b: [m] masses >= 0 of the columns; uniform with the total of a if None. Totals
        of bfloat16 or float16 masses may differ by their rounding; without rho they
        are then made equal.
      epsilon: [] regularisation > 0 in units of cost, or of the scale that
        `relative_to` names. None means 0.05 of the costs' standard deviation. That
        grows with the distance between two clouds: far apart the plan is close to the
        product of the masses, and relative_to="within" is the scale that does not grow.
      rho_a: [] or [n] weight > 0, in units of cost, of a penalty rho_a KL(P 1 | a) in
        place of P 1 = a; infinite, or None: equality.
      rho_b: [] or [m] likewise for P^T 1 and b.
      relative_to: "max", "mean", "median" or "std" of the costs, or "within", the
        spread within the clouds (of a matrix: of the costs without the means of rows
        and columns): epsilon is a multiple of it. A scale that is zero, since the
        costs are equal up to rounding, is replaced by the absolute value of their
        mean, or by 1 if they are zero; the default epsilon likewise.
      scale_cost: the same names: costs are divided by it first, and everything
        (epsilon, rho, potentials, values) is in units of the scaled cost.

    Returns:
      The problem. `problem.epsilon` is the regularisation really used. Points of a
      cloud that have no mass are moved to the mean of the others, so that padding takes
      no digits: for other masses make another problem. Scales are
      differentiated like the rest; wrap them in `stop_gradient` to treat
      them as constants.

    Raises:
      TypeError, ValueError: a wrong type, rank, shape or name always; a bad value
        (NaN, negative mass, epsilon <= 0, unequal totals) if it is not traced.

    Status: a bad traced value becomes INVALID_INPUT, MASS_MISMATCH or NONFINITE.
    Cost: one pass over the costs for the checks, one more for a scale.
    """
    check_scale("relative_to", relative_to)
    check_scale("scale_cost", scale_cost)
    geometry = _as_geometry(cost)
    n, m = geometry.shape
    if n == 0 or m == 0:
        raise ValueError(f"cost must have at least one row and column; got {n, m}")
    a, rho_a = _flat(geometry, 0, "a", a), _flat(geometry, 0, "rho_a", rho_a)
    b, rho_b = _flat(geometry, 1, "b", b), _flat(geometry, 1, "rho_b", rho_b)
    coarse = coarseness(a), coarseness(b)
    masses_a = _as_masses("a", a, "n", n, (n, m))
    masses_b = _as_masses("b", b, "m", m, (n, m))
    given = [x for x in (masses_a, masses_b) if x is not None]
    dtype = np.result_type(geometry.dtype, *[x.dtype for x in given])
    geometry = geometry.astype(dtype)
    if isinstance(geometry, PointCloud):
        geometry = geometry.settled()
    _check_size(geometry)
    if masses_a is None:
        like = np.ones(1, dtype) if masses_b is None else masses_b.astype(dtype)
        masses_a = _uniform(n, like)
    masses_a = masses_a.astype(dtype)
    masses_b = _uniform(m, masses_a) if masses_b is None else masses_b.astype(dtype)
    rhos = (
        _as_rho("rho_a", rho_a, "n", n, dtype),
        _as_rho("rho_b", rho_b, "m", m, dtype),
    )
    if max(coarse) > 0:
        masses_a, masses_b = same_totals(masses_a, masses_b, coarse, rhos)
    check_arrays(geometry, masses_a, masses_b)  # before anything is derived of them
    if given and isinstance(geometry, PointCloud):
        geometry = _without_padding(geometry, masses_a, masses_b)
    if scale_cost is not None:
        scale = statistic(scale_cost, geometry, masses_a, masses_b)
        # A scale of bad costs would spoil the good ones, and hide which are bad.
        geometry = geometry.scaled(1 / jnp.where(jnp.isfinite(scale), scale, 1))
    if epsilon is None:
        require(
            relative_to is None,
            lambda: "relative_to needs an epsilon; got epsilon=None",
        )
        epsilon, relative_to = DEFAULT_EPSILON, "std"
    unit = as_float("epsilon", epsilon)
    if unit.shape != ():
        raise ValueError(f"epsilon must be a scalar; got shape {unit.shape}")
    unit = unit.astype(dtype)
    if relative_to is not None:
        unit = unit * _scale(relative_to, geometry, masses_a, masses_b)
    problem = Problem(geometry, masses_a, masses_b, unit, *rhos)
    check_values(problem)
    return problem
