"""The problem as data, and the only door through which inputs come in."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.geometry import Dense, Geometry, PointCloud
from jaxsns.numerics import safe_log, unit_roundoff
from jaxsns.status import Status, code

SCALES = ("max", "mean", "median", "std")
DEFAULT_EPSILON = 0.05  # of the standard deviation of the costs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Problem:
    """Entropic transport between a and b, arrays of one dtype; see `make_problem`.

    Attributes:
      geometry: the costs, [n, m].
      a: [n] masses of the rows, some may be zero.
      b: [m] masses of the columns, some may be zero.
      epsilon: [] regularisation, in units of cost.
      tau_a: [n] in (0, 1], rho / (rho + epsilon) an atom; 1 asks for equality.
      tau_b: [m] likewise. Only 1 can be solved in this version.
    """

    geometry: Geometry
    a: jax.Array
    b: jax.Array
    epsilon: jax.Array
    tau_a: jax.Array
    tau_b: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        """(n, m)."""
        return self.geometry.shape

    @property
    def dtype(self) -> jnp.dtype:
        """Dtype of all arrays."""
        return self.a.dtype

    @property
    def total(self) -> jax.Array:
        """[] mass to be moved; errors are relative to it."""
        return jnp.sum(self.a)

    def with_epsilon(self, epsilon: jax.Array) -> "Problem":
        """Return the same problem at another regularisation."""
        return dataclasses.replace(self, epsilon=epsilon)

    def dense(self) -> "Problem":
        """Return the problem with its costs formed, as the solvers want it."""
        return dataclasses.replace(self, geometry=self.geometry.dense())

    def transposed(self) -> "Problem":
        """Exchange rows and columns of a problem whose costs are formed."""
        geometry = self.geometry
        assert isinstance(geometry, Dense), "form the costs first"
        return Problem(
            geometry.transposed(), self.b, self.a, self.epsilon, self.tau_b, self.tau_a
        )


def _is_traced(*arrays: Any) -> bool:
    return any(isinstance(x, Tracer) for x in arrays)


def _as_float(name: str, value: Any) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must be an array of real numbers; got {type(value).__name__}"
        ) from error
    if array.dtype == jnp.bool_ or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(jnp.result_type(float))
    if jnp.finfo(array.dtype).bits < 32:
        return array.astype(jnp.float32)
    return array


def _as_geometry(cost: Any) -> Geometry:
    if isinstance(cost, PointCloud):
        x, y = _as_float("x", cost.x), _as_float("y", cost.y)
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
    matrix = _as_float("cost", cost.cost if isinstance(cost, Dense) else cost)
    if matrix.ndim != 2:
        raise ValueError(
            f"cost must have shape [n, m]; got {matrix.shape} "
            "(use jax.vmap for a batch of problems)"
        )
    return Dense(matrix)


def _as_masses(name: str, value: Any, letter: str, size: int, cost_shape: Any):
    if value is None:
        return None
    masses = _as_float(name, value)
    if masses.shape != (size,):
        raise ValueError(
            f"{name} must have shape [{letter}] = [{size}] to match cost "
            f"{tuple(cost_shape)}; got {masses.shape}"
        )
    return masses


def statistic(name: str, geometry: Geometry, a: jax.Array, b: jax.Array) -> jax.Array:
    """[] max, mean, median or standard deviation of the costs between real atoms.

    Atoms without mass do not count, so that padding changes no scale.
    The median sorts n m numbers; the others are one pass.
    """
    cost = geometry.dense().cost
    real = (a > 0)[:, None] & (b > 0)[None, :]
    if name == "max":
        return jnp.max(jnp.where(real, cost, -jnp.inf))
    if name == "median":
        return jnp.nanmedian(jnp.where(real, cost, jnp.nan))
    count = jnp.sum(real, dtype=cost.dtype)
    mean = jnp.sum(jnp.where(real, cost, 0)) / count
    if name == "mean":
        return mean
    variance = jnp.sum(jnp.where(real, (cost - mean) ** 2, 0)) / count
    return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)


def _check_scale(name: str, value: str | None) -> None:
    if value is not None and value not in SCALES:
        raise ValueError(f"{name} must be None or one of {SCALES}; got {value!r}")


def mass_slack(dtype: jnp.dtype, n: int, m: int) -> float:
    """Relative difference of two totals that counts as rounding."""
    return 8 * unit_roundoff(dtype) * max(n + m, 64) ** 0.5


def validity(problem: Problem) -> jax.Array:
    """[] int32 status of the values of a, b and epsilon: RUNNING if they are fine."""
    a, b, epsilon = problem.a, problem.b, problem.epsilon
    fine = jnp.all(jnp.isfinite(a) & (a >= 0)) & jnp.all(jnp.isfinite(b) & (b >= 0))
    fine &= jnp.isfinite(epsilon) & (epsilon > 0) & (jnp.sum(a) > 0) & (jnp.sum(b) > 0)
    fine &= jnp.all(problem.tau_a == 1) & jnp.all(problem.tau_b == 1)
    slack = mass_slack(problem.dtype, *problem.shape) * jnp.sum(a)
    equal = jnp.abs(jnp.sum(a) - jnp.sum(b)) <= slack
    status = jnp.where(equal, code(Status.RUNNING), code(Status.MASS_MISMATCH))
    return jnp.where(fine, status, code(Status.INVALID_INPUT)).astype(jnp.int32)


def _require(condition: bool, message: Callable[[], str]) -> None:
    if not condition:
        raise ValueError(message())


def check_values(problem: Problem) -> None:
    """Raise ValueError for bad values in whatever is not traced; name the argument."""
    for name, array in problem.geometry.arrays.items():
        if not _is_traced(array):
            bad = ~np.isfinite(np.asarray(array))
            _require(
                not bad.any(),
                lambda n=name, w=bad: (
                    f"{n} must be finite; got {int(w.sum())} NaN or infinite entries, "
                    f"the first at {tuple(int(i) for i in np.argwhere(w)[0])}"
                ),
            )
    epsilon = problem.epsilon
    if not _is_traced(epsilon):
        value = float(epsilon)
        _require(
            np.isfinite(value) and value > 0,
            lambda: f"epsilon must be positive and finite; got {value}",
        )
    for name, masses in (("a", problem.a), ("b", problem.b)):
        if _is_traced(masses):
            continue
        host = np.asarray(masses)
        wrong = ~(np.isfinite(host) & (host >= 0))
        _require(
            not wrong.any(),
            lambda n=name, h=host, w=wrong: (
                f"{n} must hold finite masses >= 0; got {h[w][0]} "
                f"at index {int(np.argmax(w))}"
            ),
        )
        _require(host.sum() > 0, lambda n=name: f"{n} must have a positive total")
    for name, tau in (("tau_a", problem.tau_a), ("tau_b", problem.tau_b)):
        _require(
            _is_traced(tau) or bool(np.all(np.asarray(tau) == 1)),
            lambda n=name: f"{n} must be 1: unbalanced problems cannot be solved yet",
        )
    if not _is_traced(problem.a, problem.b):
        totals = [np.asarray(x).sum(dtype=np.float64) for x in (problem.a, problem.b)]
        slack = mass_slack(problem.dtype, *problem.shape) * totals[0]
        _require(
            abs(totals[0] - totals[1]) <= slack,
            lambda: (
                f"a and b must have equal totals; got {totals[0]:.9g} and "
                f"{totals[1]:.9g} (normalise both, e.g. a / a.sum())"
            ),
        )


def make_problem(
    cost: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: Any = None,
    relative_to: str | None = None,
    scale_cost: str | None = None,
) -> Problem:
    """Check the inputs and put them into one dtype.

    Args:
      cost: [n, m] costs, or a geometry (`Dense`, `PointCloud`).
      a: [n] masses >= 0 of the rows; uniform with total 1 if None.
      b: [m] masses >= 0 of the columns; uniform with the total of a if None.
      epsilon: [] regularisation > 0 in units of cost, or of the scale that
        `relative_to` names. None means 0.05 of the costs' standard deviation.
      relative_to: "max", "mean", "median" or "std": epsilon is a multiple of it.
      scale_cost: the same names: costs are divided by it first, and everything
        (epsilon, potentials, values) is in units of the scaled cost.

    Returns:
      The problem. `problem.epsilon` is the regularisation really used. Scales are
      differentiated like the rest; wrap them in `stop_gradient` yourself if they
      shall be constants.

    Raises:
      TypeError, ValueError: a wrong type, rank, shape or name always; a bad value
        (NaN, negative mass, epsilon <= 0, unequal totals) if it is not traced.

    Status: a bad traced value becomes INVALID_INPUT, MASS_MISMATCH or NONFINITE.
    Cost: one pass over the costs for the checks, one more for a scale.
    """
    _check_scale("relative_to", relative_to)
    _check_scale("scale_cost", scale_cost)
    geometry = _as_geometry(cost)
    n, m = geometry.shape
    if n == 0 or m == 0:
        raise ValueError(f"cost must have at least one row and column; got {n, m}")
    masses_a = _as_masses("a", a, "n", n, (n, m))
    masses_b = _as_masses("b", b, "m", m, (n, m))
    given = [x for x in (masses_a, masses_b) if x is not None]
    dtype = np.result_type(geometry.dtype, *[x.dtype for x in given])
    geometry = geometry.astype(dtype)
    total = jnp.asarray(1, dtype)
    if masses_a is None and masses_b is not None:
        total = jnp.sum(masses_b.astype(dtype))
    if masses_a is None:
        masses_a = jnp.full((n,), 1 / n, dtype) * total
    masses_a = masses_a.astype(dtype)
    if masses_b is None:
        masses_b = jnp.full((m,), 1 / m, dtype) * jnp.sum(masses_a)
    masses_b = masses_b.astype(dtype)
    if scale_cost is not None:
        geometry = geometry.scaled(
            1 / statistic(scale_cost, geometry, masses_a, masses_b)
        )
    if epsilon is None:
        _require(
            relative_to is None,
            lambda: "relative_to needs an epsilon; got epsilon=None",
        )
        epsilon, relative_to = DEFAULT_EPSILON, "std"
    epsilon = _as_float("epsilon", epsilon)
    if epsilon.shape != ():
        raise ValueError(f"epsilon must be a scalar; got shape {epsilon.shape}")
    epsilon = epsilon.astype(dtype)
    if relative_to is not None:
        epsilon = epsilon * statistic(relative_to, geometry, masses_a, masses_b)
    ones = jnp.ones((n,), dtype), jnp.ones((m,), dtype)
    problem = Problem(geometry, masses_a, masses_b, epsilon, *ones)
    check_values(problem)
    return problem


def log_masses(problem: Problem) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) log a and log b, -inf where there is no mass."""
    return safe_log(problem.a), safe_log(problem.b)
