"""Wasserstein barycentre on a fixed support: the door and the result."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.barycentres import bregman
from jaxsns.barycentres.fixed_support_derivative import attach
from jaxsns.barycentres.measures import Measures
from jaxsns.geometry import CostLike, Dense, PointCloud
from jaxsns.numerics import default_tolerance, derivative_only
from jaxsns.problem.checks import coarseness, equalised, is_traced, mass_slack, require
from jaxsns.problem.inputs import as_float, as_positive, require_positive
from jaxsns.recording.summary import one_line
from jaxsns.solution import require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Barycentre:
    """Barycentre on a fixed support, and the potentials of the K plans.

    Attributes:
      mass: [m] masses of the barycentre; the total is that of each measure.
      f: [K, n] row potentials, in units of cost; -inf where there is no mass.
      g: [K, m] column potentials: sum_k w_k g_k = 0, and <mass, g_k> = 0 for each k,
        so that <masses_k, f_k> - epsilon total is the transport value of plan k.
      error: [] L1 error of both marginals over the mass, of the worst of the K plans
        exp((f_k + g_k - C_k) / epsilon).
      status: [] int32, a `Status`.
      steps: [] int32 projections made: two products with each matrix.

    mass, f and g carry the derivative of the exact solution (implicit).
    """

    mass: jax.Array
    f: jax.Array
    g: jax.Array
    error: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def converged(self) -> jax.Array:
        """[] bool: the error is at most the tolerance."""
        return self.status == code(Status.CONVERGED)

    def raise_if_failed(self) -> "Barycentre":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """One line: sizes, dtype, status, error and steps."""
        number, n = self.f.shape[-2:]
        sizes = f"{number} measures, {n} x {self.mass.shape[-1]}"
        return one_line("Barycentre", sizes, self.status, self.steps, error=self.error)


def as_costs(costs: Any, number: int) -> jax.Array:
    """Check costs [n, m] or [K, n, m], or a geometry, of `number` measures."""
    if isinstance(costs, Dense | PointCloud):
        costs = costs.dense().cost
    costs = as_float("costs", costs)
    if costs.ndim not in (2, 3) or 0 in costs.shape:
        raise ValueError(
            f"costs must have shape [n, m] or [K, n, m], none of them 0; got "
            f"{costs.shape}"
        )
    if costs.ndim == 3 and costs.shape[0] != number:
        raise ValueError(
            f"costs must have shape [n, m] or [K, n, m] with K = {number} to match "
            f"masses; got {costs.shape}"
        )
    return costs


def slack_of(name: str, value: Any) -> float:
    """Relative difference of totals that is rounding in the dtype that was given."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        dtype = as_float(name, value).dtype
    return mass_slack(dtype, sum(jnp.shape(value)), 0)


def with_total(masses: jax.Array, total: jax.Array) -> jax.Array:
    """Masses [..., n] scaled to a total [], without a derivative of the factor.

    Only rounding is left to scale away where totals agree.
    """
    sums = jnp.sum(masses, axis=-1, keepdims=True)
    factor = total / jnp.where(sums > 0, sums, 1)
    return masses * jax.lax.stop_gradient(factor)


def as_measures(
    masses: Any, weights: Any, epsilon: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Check masses [K, n], weights [K] (None: equal) and epsilon []; in one dtype."""
    coarse = coarseness(masses)
    masses = as_float("masses", masses)
    if masses.ndim != 2 or 0 in masses.shape:
        raise ValueError(
            f"masses must have shape [K, n], none of them 0; got {masses.shape}"
        )
    number = masses.shape[0]
    weights = jnp.ones(number, masses.dtype) if weights is None else weights
    weights = as_float("weights", weights)
    if weights.shape != (number,):
        raise ValueError(
            f"weights must have shape [K] = [{number}] to match masses "
            f"{masses.shape}; got {weights.shape}"
        )
    epsilon = as_float("epsilon", epsilon)
    if epsilon.shape != ():
        raise ValueError(f"epsilon must be a scalar; got shape {epsilon.shape}")
    require_masses("masses", masses)
    require_masses("weights", weights)
    if coarse > 0:
        masses = equalised(
            masses, jnp.sum(masses[:1], axis=1, keepdims=True), 2 * coarse
        )
    if not is_traced(masses):
        sums = np.asarray(masses).sum(axis=1, dtype=np.float64)
        slack = mass_slack(masses.dtype, *masses.shape) * sums.max()
        require(
            bool(np.ptp(sums) <= slack),
            lambda: f"masses must have equal totals; got {sums} (normalise them)",
        )
    positive_scalar("epsilon", epsilon)
    return masses, weights, epsilon


def require_masses(name: str, value: jax.Array) -> None:
    """Raise ValueError for bad values along the last axis, unless they are traced."""
    if is_traced(value):
        return
    host = np.asarray(value)
    wrong = ~(np.isfinite(host) & (host >= 0))
    require(
        not wrong.any(),
        lambda: (
            f"{name} must be finite and >= 0; got {host[wrong][0]} "
            f"at {tuple(int(i) for i in np.argwhere(wrong)[0])}"
        ),
    )
    sums = host.sum(axis=-1)
    require(
        bool((sums > 0).all()),
        lambda: f"{name} must have a positive total; got {sums}",
    )


def positive_scalar(name: str, value: Any) -> None:
    """Raise ValueError unless a number that is not traced is positive and finite."""
    kind = "positive and finite"
    require_positive(name, value, kind=kind)
    if name == "max_steps":
        as_positive(name, value, jnp.int32)  # a whole number that int32 holds
    if not is_traced(value):
        require(
            np.isfinite(float(value)), lambda: f"{name} must be {kind}; got {value}"
        )


def validity(masses, weights, slack: float, *positive: jax.Array) -> jax.Array:
    """[] int32 status of raw values: RUNNING if they are fine."""
    fine = jnp.all(jnp.isfinite(masses) & (masses >= 0))
    fine &= jnp.all(jnp.isfinite(weights) & (weights >= 0)) & (jnp.sum(weights) > 0)
    for value in positive:
        fine &= jnp.isfinite(value) & (value > 0)
    totals = jnp.sum(masses, axis=1)
    fine &= jnp.all(totals > 0)
    equal = jnp.max(totals) - jnp.min(totals) <= slack * jnp.max(totals)
    status = jnp.where(equal, code(Status.RUNNING), code(Status.MASS_MISMATCH))
    return jnp.where(fine, status, code(Status.INVALID_INPUT)).astype(jnp.int32)


@hints.answered
def fixed_support_barycentre(
    costs: CostLike,
    masses: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    tolerance: ArrayLike | None = None,
    max_steps: ArrayLike = 20_000,
) -> Barycentre:
    """Masses on a given support that are nearest to K measures in transport.

        minimise  sum_k w_k (<C_k, P_k> + epsilon sum P_k (log P_k - 1))
        over b and P_k >= 0 with P_k 1 = masses_k and P_k^T 1 = b

    Args:
      costs: [n, m] finite costs that all measures share, a geometry (`Dense`,
        `PointCloud`), or [K, n, m]; rows are atoms of the measures, columns those of
        the barycentre.
      masses: [K, n] masses >= 0 of the measures, with equal totals up to rounding in
        their dtype (made equal in that of the solve); zeros for padding.
      weights: [K] >= 0, divided by their sum; equal if None.
      epsilon: [] regularisation > 0, in units of cost. It blurs: even the barycentre
        of a single measure is wider than that measure.
      tolerance: [] error at which to stop; None: 1e-10 in float64, 2e-5 in float32.
      max_steps: [] limit of projections.

    Returns:
      The `Barycentre`; look at `.converged`. mass, f and g can be differentiated with
      respect to costs, masses, weights and epsilon, forward, reverse, to any order.

    Raises:
      TypeError, ValueError: a wrong type, rank or shape always; a bad value (not
        finite, negative, unequal totals) if it is not traced.

    Status: MAX_STEPS and STALLED come with the best found; NONFINITE (a cost) and, if
      traced, INVALID_INPUT and MASS_MISMATCH come with NaN.
    Cost: 2 K n m multiplications a step, a number of steps that grows like 1 / epsilon
      or faster. Costs that are shared, [n, m], take products of matrices and 2 n m
      numbers beside 10 K (n + m); while potentials of the measures differ by more than
      180 epsilon (54 in float32), steps take 2 K n m exponentials instead. Costs
      [K, n, m] take two arrays of that size. A derivative takes O(K (m^3 + n m^2)),
      and K m^2 numbers, or 3 m^2 where K m^2 is more than 2^25.
    Source: Benamou, Carlier, Cuturi, Nenna, Peyre, "Iterative Bregman projections for
      regularized transportation problems" (2015), section 3.2; Cuturi and Doucet,
      "Fast computation of Wasserstein barycenters" (2014). The derivative is that of
      the optimum, by the implicit function theorem.
    """
    slack = slack_of("masses", masses)
    masses, weights, epsilon = as_measures(masses, weights, epsilon)
    costs = as_costs(costs, masses.shape[0])
    if costs.shape[-2] != masses.shape[1]:
        raise ValueError(
            f"masses must have shape [K, n] with n = {costs.shape[-2]} to match costs "
            f"{costs.shape}; got {masses.shape}"
        )
    if not is_traced(costs):
        bad = ~np.isfinite(np.asarray(costs))
        require(
            not bad.any(),
            lambda: f"costs must be finite; got {int(bad.sum())} entries that are not",
        )
    dtype = np.result_type(costs.dtype, masses.dtype, weights.dtype)
    costs, masses, weights, epsilon = (
        x.astype(dtype) for x in (costs, masses, weights, epsilon)
    )
    tolerance = default_tolerance(dtype) if tolerance is None else tolerance
    for name, value in (("tolerance", tolerance), ("max_steps", max_steps)):
        positive_scalar(name, value)
    tolerance = jnp.asarray(tolerance, dtype)
    valid = validity(masses, weights, slack, epsilon, tolerance)
    masses = with_total(masses, jnp.mean(jnp.sum(masses, axis=1)))
    measures = Measures(costs, masses, weights / jnp.sum(weights), epsilon)
    end = bregman.run(
        *jax.lax.stop_gradient(
            (measures, tolerance, jnp.asarray(max_steps, jnp.int32), valid)
        )
    )
    f, g, mass = attach(measures, end.f, end.g, jnp.exp(end.log_mass))
    # They were judged centred: shifted once more they would be rounded once more.
    none = derivative_only(bregman.gauge_shift(g, mass))
    return Barycentre(mass, f + none, g - none, end.error, end.status, end.step)
