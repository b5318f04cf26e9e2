"""Wasserstein barycentre with free support, squared Euclidean cost.

The support Y minimises F(Y) = sum_k w_k OT(points_k, Y); where the gradient vanishes

    Y_j = sum_k w_k (sum_i P_k,ij points_k,i) / b_j  =: T(Y)_j

Source: Cuturi and Doucet, "Fast computation of Wasserstein barycenters" (ICML 2014),
algorithm 2 with step 1; the plans are entropic and not debiased.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.barycentres.fixed_support import (
    as_measures,
    positive_scalar,
    require_masses,
    slack_of,
    validity,
    with_total,
)
from jaxsns.barycentres.free_support_derivative import Clouds, attach, attached, mean
from jaxsns.geometry import PointCloud
from jaxsns.numerics import default_tolerance, machine_epsilon
from jaxsns.problem.checks import is_traced, require
from jaxsns.problem.inputs import as_float
from jaxsns.recording.summary import one_line
from jaxsns.solution import require_converged
from jaxsns.solver import solve
from jaxsns.solvers import loop
from jaxsns.status import Status, code

IDLE = 20  # steps without a smaller movement, near rounding, that mean a stall [D10]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class FreeBarycentre:
    """Support of a barycentre, and the potentials of the K plans to it.

    Attributes:
      support: [m, d] its points, in the unit of the points; rows without mass are as
        they were given.
      f: [K, n] row potentials, in units of squared distance; -inf without mass.
      g: [K, m] column potentials; gauge <masses_k, f_k> = <b, g_k>.
      error: [] largest distance by which one more step would move a point, over the
        root mean square distance of the input points from their mean.
      inner_error: [] L1 error of both marginals of the worst plan, relative.
      status: [] int32, a `Status`.
      steps: [] int32 steps made: K transport problems each.

    support, f and g carry the derivative of the exact fixed point (implicit).
    """

    support: jax.Array
    f: jax.Array
    g: jax.Array
    error: jax.Array
    inner_error: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def converged(self) -> jax.Array:
        """[] bool: the movement is at most the tolerance, and all plans converged."""
        return self.status == code(Status.CONVERGED)

    def raise_if_failed(self) -> "FreeBarycentre":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """One line: sizes, dtype, status, error and steps."""
        number, n = self.f.shape[-2:]
        m, d = self.support.shape[-2:]
        sizes = f"{number} measures, {n} x {m}, d={d}"
        return one_line(
            "FreeBarycentre", sizes, self.status, self.steps, error=self.error
        )


class _State(NamedTuple):
    y: jax.Array  # [m, d] where the plans are of
    next: jax.Array  # [m, d] where to go on
    f: jax.Array
    g: jax.Array
    error: jax.Array
    inner_error: jax.Array
    best: jax.Array
    idle: jax.Array
    step: jax.Array
    status: jax.Array


def _spread(clouds: Clouds) -> jax.Array:
    """[] root mean square distance of the points from their mean, 1 if it is 0."""
    share = clouds.weights[:, None] * clouds.masses
    share = (share / jnp.sum(share))[:, :, None]
    centre = jnp.sum(share * clouds.points, axis=(0, 1), keepdims=True)
    square = jnp.sum(share * (clouds.points - centre) ** 2)
    return jnp.where(square > 0, jnp.sqrt(square), 1)


@jax.jit
def _iterate(clouds: Clouds, start, tolerance, inner_tolerance, max_steps, valid):
    spread = _spread(clouds)
    real = (clouds.b > 0)[:, None]

    def plans(y, f, g):
        def one(x, a, f, g):
            out = solve(
                PointCloud(x, y),
                a,
                clouds.b,
                epsilon=clouds.epsilon,
                tolerance=inner_tolerance,
                init=(f, g),
            )
            image = out.barycentric(x, axis=0)
            return image, out.f, out.g, out.error, out.status

        return jax.vmap(one)(clouds.points, clouds.masses, f, g)

    def update(s: _State) -> _State:
        y = s.next
        images, f, g, inner_errors, inner = plans(y, s.f, s.g)
        new = jnp.where(real, mean(clouds, images), y)
        error = jnp.sqrt(jnp.max(jnp.sum((new - y) ** 2, axis=1))) / spread
        idle = jnp.where(error < s.best, 0, s.idle + 1)
        # Away from rounding movements may well grow: on the way out of a saddle.
        stalled = (idle >= IDLE) & (error < machine_epsilon(y.dtype) ** 0.5)
        step = s.step + 1
        status = loop.status_at(error, tolerance, step, max_steps, stalled)
        failed = jnp.max(jnp.where(inner == code(Status.CONVERGED), 0, inner))
        hopeful = (inner == code(Status.MAX_STEPS)) | (inner == code(Status.STALLED))
        hopeless = jnp.any((inner != code(Status.CONVERGED)) & ~hopeful)
        # Plans that are not right say nothing about the movement of right ones.
        settled = status == code(Status.CONVERGED)
        status = jnp.where(hopeless | (settled & (failed > 0)), failed, status)
        return _State(
            y=y,
            next=new,
            f=f,
            g=g,
            error=error,
            inner_error=jnp.max(inner_errors),
            best=jnp.minimum(error, s.best),
            idle=idle,
            step=step,
            status=loop.as_status(status),
        )

    f, infinite = jnp.zeros_like(clouds.masses), jnp.asarray(jnp.inf, start.dtype)
    g = jnp.zeros_like(jnp.broadcast_to(clouds.b, (f.shape[0], clouds.b.shape[0])))
    zero = jnp.asarray(0, jnp.int32)
    first = _State(
        start, start, f, g, infinite, infinite, infinite, zero, zero,
        loop.as_status(valid),
    )  # fmt: skip
    end = loop.run(update, first)
    kept = (Status.CONVERGED, Status.MAX_STEPS, Status.STALLED)
    bad = ~functools.reduce(jnp.logical_or, [end.status == code(s) for s in kept])
    f, g, y, error = (
        jnp.where(bad, jnp.nan, v) for v in (end.f, end.g, end.y, end.error)
    )
    return end._replace(f=f, g=g, y=y, error=error)


def _as_points(name: str, value: Any, shape: str, ndim: int) -> jax.Array:
    points = as_float(name, value)
    if points.ndim != ndim or 0 in points.shape:
        raise ValueError(
            f"{name} must have shape {shape}, none of them 0; got {points.shape}"
        )
    if not is_traced(points):
        bad = ~np.isfinite(np.asarray(points))
        require(
            not bad.any(),
            lambda: f"{name} must be finite; got {int(bad.sum())} entries that are not",
        )
    return points


def _b_validity(b: jax.Array, total: jax.Array, slack: float) -> jax.Array:
    """[] int32 status of raw masses of the barycentre: RUNNING if they are fine."""
    fine = jnp.all(jnp.isfinite(b) & (b >= 0)) & (jnp.sum(b) > 0)
    equal = jnp.abs(jnp.sum(b) - total) <= slack * total
    status = jnp.where(equal, code(Status.RUNNING), code(Status.MASS_MISMATCH))
    return jnp.where(fine, status, code(Status.INVALID_INPUT)).astype(jnp.int32)


def _as_b(b: Any, size: int, masses: jax.Array, slack: float) -> jax.Array:
    """[m] masses of the barycentre; uniform if None."""
    if b is None:
        return jnp.full((size,), 1 / size, masses.dtype) * jnp.mean(
            jnp.sum(masses, axis=1)
        )
    b = as_float("b", b)
    if b.shape != (size,):
        raise ValueError(
            f"b must have shape [m] = [{size}] to match start; got {b.shape}"
        )
    require_masses("b", b)
    if not is_traced(b, masses):
        totals = [np.asarray(x).sum(dtype=np.float64) for x in (b, masses[0])]
        require(
            bool(abs(totals[0] - totals[1]) <= slack * totals[1]),
            lambda: f"b must have the total of each measure, {totals[1]:.9g}; "
            f"got {totals[0]:.9g}",
        )
    return b


@hints.answered
def free_support_barycentre(
    points: ArrayLike,
    masses: ArrayLike,
    start: ArrayLike,
    weights: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    tolerance: ArrayLike | None = None,
    inner_tolerance: ArrayLike | None = None,
    max_steps: ArrayLike = 1_000,
) -> FreeBarycentre:
    """Points that are nearest to K weighted clouds in squared Euclidean transport.

    Args:
      points: [K, n, d] finite points; padding points may have any finite value.
      masses: [K, n] masses >= 0 with equal totals; zeros for padding.
      start: [m, d] points to start from. The problem is not convex in them: another
        start may give another local minimum. Nothing is differentiated through it.
      weights: [K] >= 0, divided by their sum; equal if None.
      b: [m] masses >= 0 of the barycentre, with the same total; uniform if None.
      epsilon: [] regularisation > 0, in units of squared distance. A large one pulls
        all points to the mean of the clouds.
      tolerance: [] largest movement of a point in a step, relative to the spread of
        the points, at which to stop; None: 1e-8 in float64, 1e-4 in float32.
      inner_tolerance: [] that of the transport problems, as in `solve`.
      max_steps: [] limit of steps.

    Returns:
      The `FreeBarycentre`; look at `.converged`. support, f and g can be
      differentiated with respect to points, masses, weights, b and epsilon, forward,
      reverse, to any order. A derivative at a fixed point that does not attract, or
      is not isolated, is NaN or large.

    Raises:
      TypeError, ValueError: a wrong type, rank or shape always; a bad value (not
        finite, negative, unequal totals) if it is not traced.

    Status: MAX_STEPS and STALLED come with the support that was reached, also where
      it stands still but a transport problem did not converge; NONFINITE and, if
      traced, INVALID_INPUT and MASS_MISMATCH come with NaN.
    Cost: K transport problems a step, started from the potentials of the step before.
      A derivative takes some tens of products, each a linear solve for K plans; more
      near a support that is about to split.
    Source: Cuturi and Doucet, "Fast computation of Wasserstein barycenters" (2014),
      algorithm 2 with step 1.
    """
    slack = slack_of("masses", masses)
    masses, weights, epsilon = as_measures(masses, weights, epsilon)
    points = _as_points("points", points, "[K, n, d]", 3)
    start = _as_points("start", start, "[m, d]", 2)
    if points.shape[:2] != masses.shape:
        raise ValueError(
            f"points must have shape [K, n, d] to match masses {masses.shape}; got "
            f"{points.shape}"
        )
    if start.shape[1] != points.shape[2]:
        raise ValueError(
            f"start must have shape [m, d] with d = {points.shape[2]} to match points; "
            f"got {start.shape}"
        )
    b_slack = max(slack, slack if b is None else slack_of("b", b))
    b = _as_b(b, start.shape[0], masses, b_slack)
    arrays = (points, masses, weights, b, start)
    dtype = np.result_type(*[x.dtype for x in arrays])
    points, masses, weights, b, start = (x.astype(dtype) for x in arrays)
    epsilon = epsilon.astype(dtype)
    if tolerance is None:
        tolerance = 1e-8 if jnp.finfo(dtype).bits >= 64 else 1e-4
    if inner_tolerance is None:
        inner_tolerance = default_tolerance(dtype)
    numbers = {
        "tolerance": tolerance,
        "inner_tolerance": inner_tolerance,
        "max_steps": max_steps,
    }
    for name, value in numbers.items():
        positive_scalar(name, value)
    tolerance = jnp.asarray(tolerance, dtype)
    inner_tolerance = jnp.asarray(inner_tolerance, dtype)
    positive = epsilon, tolerance, inner_tolerance
    valid = validity(masses, weights, slack, *positive)
    total = jnp.mean(jnp.sum(masses, axis=1))
    valid = jnp.where(
        valid == code(Status.RUNNING), _b_validity(b, total, b_slack), valid
    )
    masses, b = with_total(masses, total), with_total(b, total)
    clouds = Clouds(points, masses, weights / jnp.sum(weights), b, epsilon)
    limit = jnp.asarray(max_steps, jnp.int32)
    arguments = (clouds, start, tolerance, inner_tolerance, limit, valid)
    end = _iterate(*jax.lax.stop_gradient(arguments))
    support = attach(clouds, end.y, end.f, end.g)
    f, g, _ = attached(clouds, support, end.f, end.g)
    return FreeBarycentre(
        support, f, g, end.error, end.inner_error, end.status, end.step
    )
