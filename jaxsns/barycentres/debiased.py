"""Debiased barycentre on a fixed support: that of Sinkhorn divergences.

The entropic barycentre minimises sum_k w_k OT(a_k, b), and is blurred. With the term
-OT(b, b) / 2 of the divergence it is not: the barycentre of copies of a measure is that
measure. At the optimum sum_k w_k g_k = h, where g_k are the column potentials of the
transports to b and h is the potential of b to itself. A sweep scales rows, then columns
with h as a bonus, and makes half a symmetric sweep for h. All in the log domain.
Source: Janati, Cuturi, Gramfort, "Debiased Sinkhorn barycenters", ICML 2020.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.barycentres import fixed_support
from jaxsns.barycentres.measures import Measures, over_measures, weighted_sum
from jaxsns.geometry import CostLike
from jaxsns.numerics import safe_log, scaled_log_sum
from jaxsns.problem import arguments
from jaxsns.problem.checks import is_traced, require
from jaxsns.problem.inputs import as_float
from jaxsns.recording.summary import one_line
from jaxsns.solution import require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class DebiasedBarycentre:
    """Debiased barycentre, and the potentials behind it.

    Attributes:
      mass: [m] masses of the barycentre.
      f: [K, n] row potentials of the plans to it, in units of cost.
      g: [K, m] column potentials; sum_k w_k g_k = h at the optimum.
      h: [m] potential of the plan from the barycentre to itself.
      error: [] L1 error over the mass: of the columns of the worst plan, and of the
        marginal of the plan of the barycentre to itself, together.
      status: [] int32, a `Status`.
      steps: [] int32 sweeps made.
    """

    mass: jax.Array
    f: jax.Array
    g: jax.Array
    h: jax.Array
    error: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def converged(self) -> jax.Array:
        """[] bool: the error is at most the tolerance."""
        return self.status == code(Status.CONVERGED)

    def raise_if_failed(self) -> "DebiasedBarycentre":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """One line: sizes, dtype, status, error and steps."""
        number, n = self.f.shape[-2:]
        sizes = f"{number} measures, {n} x {self.mass.shape[-1]}"
        return one_line(
            "DebiasedBarycentre", sizes, self.status, self.steps, error=self.error
        )


def _soft(measures: Measures, x: jax.Array, axis: int) -> jax.Array:
    """Soft maxima of x_k - C_k along an axis: [K, m] -> [K, n] for axis=1."""

    def one(cost: jax.Array, x: jax.Array) -> jax.Array:
        return scaled_log_sum(
            jnp.expand_dims(x, 1 - axis) - cost, measures.epsilon, axis
        )

    entries = measures.costs.shape[-1] * measures.costs.shape[-2]
    if measures.shared:
        return over_measures(lambda x: one(measures.costs, x), entries, (x,))
    return over_measures(one, entries, (measures.costs, x))


def _own(self_cost: jax.Array, h: jax.Array, epsilon: jax.Array) -> jax.Array:
    """[m] soft maxima of h - C along the rows of the cost to itself."""
    return scaled_log_sum(h[None, :] - self_cost, epsilon, 1)


def _sweep(measures: Measures, self_cost: jax.Array, g: jax.Array, h: jax.Array):
    """(f, g, h, epsilon log b) after one sweep."""
    epsilon = measures.epsilon
    f = epsilon * safe_log(measures.masses) - _soft(measures, g, 1)
    columns = _soft(measures, f, 0)
    log_b = h + weighted_sum(measures.weights, columns)
    own = _own(self_cost, h, epsilon)
    return f, log_b[None, :] - columns, (h + log_b - own) / 2, log_b


@functools.partial(jax.jit, static_argnums=2)
def _swept(measures: Measures, self_cost: jax.Array, steps: int):
    """Potentials and masses after all sweeps, and the error."""
    epsilon = measures.epsilon

    @jax.checkpoint
    def step(state, _):
        _, g, h, log_b = _sweep(measures, self_cost, *state[:2])
        return (g, h, log_b), None

    zero = jnp.zeros(self_cost.shape[:1], measures.masses.dtype)
    g = jnp.zeros((measures.masses.shape[0], *zero.shape), zero.dtype)
    (g, h, log_b), _ = control.scan(step, (g, zero, zero), length=steps)
    mass = jnp.exp(log_b / epsilon)
    free = _soft(measures, g, 1)
    f = epsilon * safe_log(measures.masses) - free
    # Now the rows are exact, and the columns are not.
    columns = jnp.exp((g + _soft(measures, f, 0)) / epsilon)
    own = jnp.exp((h + _own(self_cost, h, epsilon)) / epsilon)
    total = jnp.sum(measures.masses[0])
    error = jnp.max(jnp.sum(jnp.abs(columns - mass[None, :]), axis=1))
    error = (error + jnp.sum(jnp.abs(own - mass))) / total
    return mass, f, g, h, error


@hints.answered
def debiased_barycentre(
    costs: CostLike,
    masses: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    self_cost: CostLike | None = None,
    steps: int = 300,
    tolerance: ArrayLike = 1e-4,
) -> DebiasedBarycentre:
    """Masses on a given support that are nearest to K measures in Sinkhorn divergence.

        minimise  sum_k w_k (OT(masses_k, b) - OT(b, b) / 2)  over b

    It is not blurred, as `fixed_support_barycentre` is: of copies of one measure it is
    that measure, and of Gaussians of one width it is that Gaussian, moved.

    Args:
      costs: [n, m] finite costs that all measures share, a geometry (`Dense`,
        `PointCloud`), or [K, n, m]; rows are atoms of the measures.
      masses: [K, n] masses >= 0 of the measures, with equal totals.
      weights: [K] >= 0, divided by their sum; equal if None.
      epsilon: [] regularisation > 0, in units of cost.
      self_cost: [m, m] symmetric costs within the support; None: `costs`, if measures
        and barycentre share the support.
      steps: number of sweeps, static.
      tolerance: [] error at which it counts as converged.

    Returns:
      The `DebiasedBarycentre`; look at `.converged`. Differentiable in costs, masses,
      weights and epsilon: derivatives are those of the sweeps. The problem is
      ill-conditioned where details are finer than the square root of epsilon: there
      the masses depend on the number of sweeps, and plans nearly do not.

    Raises:
      TypeError, ValueError: as `fixed_support_barycentre`; no self_cost where the
        costs are not one square matrix.

    Status: MAX_STEPS with what was reached; NONFINITE; if traced, INVALID_INPUT and
      MASS_MISMATCH with NaN.
    Cost: `steps` times 2 K n m + m^2 exponentials. Reverse mode keeps the K m
      potentials of each sweep.
    Source: Janati, Cuturi, Gramfort, "Debiased Sinkhorn barycenters", ICML 2020.
    """
    slack = fixed_support.slack_of("masses", masses)
    masses, weights, epsilon = fixed_support.as_measures(masses, weights, epsilon)
    costs = fixed_support.as_costs(costs, masses.shape[0])
    n, m = costs.shape[-2:]
    if n != masses.shape[1]:
        raise ValueError(
            f"masses must have shape [K, n] with n = {n} to match costs "
            f"{costs.shape}; got {masses.shape}"
        )
    if self_cost is None:
        if costs.ndim != 2 or n != m:
            raise ValueError(
                "self_cost must be given unless costs are one square matrix; got costs "
                f"{costs.shape}"
            )
        self_cost = costs
    self_cost = as_float("self_cost", self_cost)
    if self_cost.shape != (m, m):
        raise ValueError(
            f"self_cost must have shape [m, m] = [{m}, {m}]; got {self_cost.shape}"
        )
    for name, x in (("costs", costs), ("self_cost", self_cost)):
        if not is_traced(x):
            bad = int((~np.isfinite(np.asarray(x))).sum())
            require(
                bad == 0,
                lambda k=name, b=bad: f"{k} must be finite; got {b} that are not",
            )
    steps = arguments.as_count("steps", steps)
    fixed_support.positive_scalar("tolerance", tolerance)
    dtype = np.result_type(costs.dtype, masses.dtype, weights.dtype, self_cost.dtype)
    costs, self_cost, masses, weights, epsilon = (
        x.astype(dtype) for x in (costs, self_cost, masses, weights, epsilon)
    )
    tolerance = jnp.asarray(tolerance, dtype)
    valid = fixed_support.validity(masses, weights, slack, epsilon, tolerance)
    masses = fixed_support.with_total(masses, jnp.mean(jnp.sum(masses, axis=1)))
    measures = Measures(costs, masses, weights / jnp.sum(weights), epsilon)
    *found, error = _swept(measures, self_cost, steps)
    error = jax.lax.stop_gradient(error)
    near = jnp.where(error <= tolerance, code(Status.CONVERGED), code(Status.MAX_STEPS))
    status = jnp.where(jnp.isfinite(error), near, code(Status.NONFINITE))
    good = valid == code(Status.RUNNING)
    status = jnp.where(good, status, valid).astype(jnp.int32)
    ok = good & jnp.isfinite(error)
    mass, f, g, h = (arguments.nan_unless(ok, x) for x in found)
    made = jnp.asarray(steps, jnp.int32)
    return DebiasedBarycentre(mass, f, g, h, error, status, made)
