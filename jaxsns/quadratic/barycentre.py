"""Barycentre of spaces with fixed masses: costs that are nearest to those of K spaces.

    minimise  sum_k w_k GW(costs_k, C)  over C [m, m]; for plans P_k the best C is
    C = sum_k w_k P_k^T costs_k P_k / (b b^T),   for the square loss and for "kl"

Fused, features X [m, d] are sought as well: X = sum_k w_k P_k^T features_k / b.
Sources: Peyre, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance
matrices" (ICML 2016), algorithm 1; Vayer et al. (ICML 2019), fused. As POT's
`gromov_barycenters` and `fgw_barycenters`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.barycentres.fixed_support import as_measures, require_masses
from jaxsns.geometry import PointCloud
from jaxsns.numerics import matmul
from jaxsns.problem.checks import is_traced, mass_slack
from jaxsns.problem.inputs import as_float, as_positive, require_positive
from jaxsns.quadratic.solve import solve_quadratic
from jaxsns.quadratic.spaces import as_space
from jaxsns.solution import require_converged
from jaxsns.solvers import loop
from jaxsns.status import Status, code


class SpaceBarycentre(NamedTuple):
    """Costs of a barycentre of spaces.

    Attributes:
      cost: [m, m] costs within it.
      features: [m, d] features of its points; None unless fused.
      change: [] largest change of an entry in the last step, over the largest entry.
      status: [] int32, a `Status`.
      steps: [] int32 steps made: K quadratic problems each.
    """

    cost: jax.Array
    features: jax.Array | None
    change: jax.Array
    status: jax.Array
    steps: jax.Array

    __repr__ = hints.one_line

    @property
    def converged(self) -> jax.Array:
        """[] bool: the change is at most the tolerance, and all plans converged."""
        return self.status == code(Status.CONVERGED)

    def raise_if_failed(self) -> "SpaceBarycentre":
        """Return self if it converged, else raise; outside `jit` only."""
        require_converged(self.status, self.change)
        return self


class _Data(NamedTuple):
    costs: jax.Array  # [K, n, n]
    masses: jax.Array  # [K, n]
    features: jax.Array | None  # [K, n, d]
    weights: jax.Array  # [K], total 1
    b: jax.Array  # [m]


@hints.answered
def space_barycentre(
    costs: ArrayLike,
    masses: ArrayLike,
    start: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    b: ArrayLike | None = None,
    features: ArrayLike | None = None,
    start_features: ArrayLike | None = None,
    tolerance: ArrayLike = 1e-5,
    max_steps: ArrayLike = 100,
    **options: Any,
) -> SpaceBarycentre:
    """Costs of m points with fixed masses that are nearest to K spaces.

    Args:
      costs: [K, n, n] symmetric costs within each; rows that fill up may be zero.
      masses: [K, n] masses >= 0 of equal totals; zeros for padding.
      start: [m, m] symmetric costs to start from, which decide the order of the points
        of the barycentre. Start from costs that differ from point to point.
      weights: [K] >= 0, divided by their sum; equal if None.
      epsilon: [] regularisation > 0, in units of squared cost.
      b: [m] masses >= 0 of the barycentre, of the same total; equal if None. A point
        without mass keeps the costs and features that it starts with.
      features: [K, n, d] features of the points (fused): squared distances of features
        are the linear cost, and `alpha` is that of `solve_quadratic`.
      start_features: [m, d] to start from; needed with features.
      tolerance: [] change at which to stop, relative to the largest entry.
      max_steps: [] limit of steps.
      **options: of `solve_quadratic`, e.g. alpha, loss, init, inner_tolerance.

    Returns:
      The `SpaceBarycentre`. It carries no derivative: gradients through it are zero.

    Raises:
      TypeError, ValueError: wrong types, shapes, or known bad values.

    Status: MAX_STEPS, or that of a quadratic problem that failed.
    Cost: K quadratic problems a step.
    """
    data, first = _checked(costs, masses, start, weights, epsilon, b, features)
    first_features = _features(features, start_features, data, first)
    require_positive("tolerance", tolerance)
    max_steps = as_positive("max_steps", max_steps, jnp.int32)
    if data.features is not None:
        data = data._replace(features=data.features.astype(data.costs.dtype))
    data, first, first_features = jax.lax.stop_gradient((data, first, first_features))
    tolerance = jnp.asarray(tolerance, first.dtype)
    update = lambda s: _updated(
        data, s, tolerance, max_steps, {"epsilon": epsilon, **options}
    )
    running = loop.as_status(code(Status.RUNNING))
    infinite = jnp.asarray(jnp.inf, first.dtype)
    state = SpaceBarycentre(
        first, first_features, infinite, running, jnp.asarray(0, jnp.int32)
    )
    return loop.run(update, state)


def _checked(costs, masses, start, weights, epsilon, b, features):
    """All data in one dtype, and the costs to start from."""
    masses, weights, epsilon = as_measures(masses, weights, epsilon)
    costs, start = as_float("costs", costs), as_float("start", start)
    if costs.ndim != 3 or costs.shape != (*masses.shape, masses.shape[1]):
        raise ValueError(
            f"costs must have shape [K, n, n] to match masses {masses.shape}; got "
            f"{costs.shape}"
        )
    if start.ndim != 2 or start.shape[0] != start.shape[1]:
        raise ValueError(f"start must have shape [m, m]; got {start.shape}")
    _require_costs("costs", costs)
    _require_costs("start", start)
    size, dtype = start.shape[0], costs.dtype
    masses, weights = masses.astype(dtype), weights.astype(dtype)
    if b is None:
        b = jnp.full((size,), 1 / size, dtype) * jnp.sum(masses[0])
    b = as_float("b", b).astype(dtype)
    if b.shape != (size,):
        raise ValueError(f"b must have shape [m] = [{size}]; got {b.shape}")
    require_masses("b", b)
    if not is_traced(masses, b):
        total, wanted = float(jnp.sum(b)), float(jnp.sum(masses[0]))
        if abs(total - wanted) > mass_slack(dtype, size, masses.shape[1]) * wanted:
            raise ValueError(
                f"b must have the total of masses, {wanted:.6g}; got {total:.6g}"
            )
    if features is not None:
        features = as_float("features", features)
    weights = weights / jnp.sum(weights)
    return _Data(costs, masses, features, weights, b), start.astype(dtype)


def _require_costs(name: str, costs: jax.Array) -> None:
    """Raise for known costs [..., n, n] that are not finite or not symmetric."""
    if not is_traced(costs):
        for k, cost in enumerate(costs.reshape(-1, *costs.shape[-2:])):
            as_space(f"{name}[{k}]" if costs.ndim > 2 else name, cost)


def _features(features, start_features, data: _Data, start: jax.Array):
    """[m, d] features to start from, or None."""
    if (features is None) != (start_features is None):
        raise ValueError("features and start_features go together: give both or none")
    if data.features is None:
        return None
    first = as_float("start_features", start_features)
    shape = data.features.shape
    if len(shape) != 3 or shape[:2] != data.masses.shape:
        raise ValueError(
            f"features must have shape [K, n, d] to match masses {data.masses.shape}; "
            f"got {shape}"
        )
    if first.shape != (start.shape[0], shape[2]):
        raise ValueError(
            f"start_features must have shape [m, d] = [{start.shape[0]}, {shape[2]}]; "
            f"got {first.shape}"
        )
    return first.astype(start.dtype)


def _divided(sums: jax.Array, masses: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(masses > 0, sums / jnp.where(masses > 0, masses, 1), old)


def _moved(data: _Data, s: SpaceBarycentre, options: dict):
    """Mean of what the plans make of the costs and features, and their statuses [K]."""

    def one(given):
        cost, mass, features = given
        linear = None
        if features is not None and s.features is not None:
            linear = PointCloud(features, s.features)
        out = solve_quadratic(cost, s.cost, mass, data.b, linear=linear, **options)
        plan = out.plan()
        columns = jnp.sum(plan, axis=0)
        pairs = columns[:, None] * columns[None, :]
        new = _divided(matmul(plan.T, matmul(cost, plan)), pairs, s.cost)
        if features is not None and s.features is not None:
            means = matmul(plan.T, features)
            features = _divided(means, columns[:, None], s.features)
        return new, features, out.status

    new, features, ends = jax.lax.map(one, (data.costs, data.masses, data.features))
    mean = lambda v: jnp.tensordot(data.weights, v, 1, precision="highest")
    cost = mean(new)
    return (cost + cost.T) / 2, None if features is None else mean(features), ends


def _updated(
    data: _Data, s: SpaceBarycentre, tolerance: jax.Array, max_steps: Any, options: dict
) -> SpaceBarycentre:
    """Solve K problems, then take the best costs and features for their plans."""
    cost, features, ends = _moved(data, s, options)
    largest = lambda v: jnp.max(jnp.abs(v))
    # Where all is zero nothing moved either.
    relative = lambda new, old: largest(new - old) / jnp.where(
        largest(new) == 0, 1, largest(new)
    )
    change = relative(cost, s.cost)
    if features is not None and s.features is not None:
        moved = relative(features, s.features)
        change = jnp.maximum(change, moved)
    step = s.steps + 1
    status = loop.status_at(change, tolerance, step, max_steps, jnp.asarray(False))
    failed = jnp.max(jnp.where(ends == code(Status.CONVERGED), 0, ends))
    hopeless = (ends != code(Status.CONVERGED)) & (ends != code(Status.MAX_STEPS))
    settled = status == code(Status.CONVERGED)
    bad = jnp.any(hopeless) | (settled & (failed > 0))
    status = loop.as_status(jnp.where(bad, failed, status))
    return SpaceBarycentre(cost, features, change, status, step)
