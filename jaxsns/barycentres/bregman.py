"""Iterative Bregman projections for the barycentre on a fixed support.

    minimise  sum_k w_k (<C_k, P_k> + epsilon sum P_k (log P_k - 1))
    over b and P_k >= 0 with P_k 1 = a_k and P_k^T 1 = b

At the optimum P_k = exp((f_k + g_k - C_k) / epsilon) with sum_k w_k g_k = 0. One
step fits all f_k to the rows, then all g_k and b to the columns together: b is the
geometric mean of the column sums. It runs on absorbed kernels, like Sinkhorn's.
Source: Benamou, Carlier, Cuturi, Nenna, Peyre, "Iterative Bregman projections for
regularized transportation problems" (2015), section 3.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.barycentres.measures import Measures, each, weighted_sum
from jaxsns.geometry import Dense
from jaxsns.numerics import (
    finite_minus_inf,
    inner_tolerance,
    largest_scaling,
    machine_epsilon,
    safe_log,
)
from jaxsns.problem import dual
from jaxsns.solvers import loop
from jaxsns.solvers.batched.joint_sinkhorn import Kernels
from jaxsns.status import Status, code

IDLE = 100  # steps without a new least error after which a kernel is left [D10]
ROOM = 0.9  # share of `largest_scaling` up to which a new shared kernel is used [D31]


class BregmanState(NamedTuple):
    """What the next update needs."""

    f: jax.Array  # [K, n] cost
    g: jax.Array  # [K, m] cost
    log_mass: jax.Array  # [m] of the barycentre
    error: jax.Array  # [] at the last verdict
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32


class _Steps(NamedTuple):
    x: jax.Array  # [K, n] log scalings of the rows
    y: jax.Array  # [K, m] and of the columns, fitted to x
    log_mass: jax.Array  # [m]
    rows: jax.Array  # [K, n] row sums at x, y
    log_rows: jax.Array  # [K, n]
    error: jax.Array
    best: jax.Array
    idle: jax.Array
    step: jax.Array


class _Operators(NamedTuple):
    """Sums of K plans exp(x + y + (base - C_k - top) / epsilon).

    Potentials are f = base + epsilon x and g = epsilon y - top.
    """

    columns: Callable[[jax.Array], jax.Array]  # x -> [K, m] log of the sums at y = 0
    rows: Callable[..., tuple[jax.Array, jax.Array]]  # x, y -> [K, n] sums, their logs
    base: jax.Array  # [1, n] or [K, n] cost
    top: jax.Array  # [1, m] or [K, m] cost


def _kernels(measures: Measures, f: jax.Array):
    """Kernels near potentials f [K, n], x [K, n] for f, and what of x may be large.

    Each cost has a kernel of its own. One that is shared is built from the middle of
    what the potentials have in common, f - epsilon log(masses): scalings as small as
    masses do no harm. One exponential pass a cost.
    """
    epsilon, real = measures.epsilon, measures.masses > 0
    if not measures.shared:
        kernel, top = jax.vmap(lambda c, f: Dense(c).absorb(f, epsilon))(
            measures.costs, f
        )
        zero = jnp.zeros_like(f)
        kernels = Kernels(kernel.matrix, f, top, epsilon[None, None])
        return kernels, zero, zero
    logs = jnp.where(real, safe_log(jnp.where(real, measures.masses, 1)), 0)
    common = f - epsilon * logs
    most = jnp.max(jnp.where(real, common, -jnp.inf), axis=0)
    least = jnp.min(jnp.where(real, common, jnp.inf), axis=0)
    used = jnp.any(real, axis=0)
    base = jnp.where(used, least / 2 + most / 2, finite_minus_inf(f.dtype))
    kernel, top = Dense(measures.costs).absorb(base, epsilon)
    kernels = Kernels(kernel.matrix, base[None], top[None], epsilon[None, None])
    return kernels, jnp.where(real, (f - base[None]) / epsilon, 0), logs


def _on_kernels(measures: Measures, kernels: Kernels) -> _Operators:
    real = measures.masses > 0

    def columns(x: jax.Array) -> jax.Array:
        return jnp.log(kernels.transpose_times(jnp.where(real, jnp.exp(x), 0)))

    def rows(x: jax.Array, y: jax.Array):
        reach = kernels.times(jnp.exp(y))
        return jnp.where(real, jnp.exp(x) * reach, 0), x + jnp.log(reach)

    return _Operators(columns, rows, kernels.base, kernels.top)


def _on_costs(measures: Measures) -> _Operators:
    """The same without kernels, in the log domain: an exponential pass a product."""
    epsilon, real = measures.epsilon, measures.masses > 0
    f, g = jnp.zeros_like(measures.masses), jnp.zeros_like(measures.costs[..., 0, :])
    none = jnp.broadcast_to(g, (f.shape[0], g.shape[-1]))
    ones = jnp.ones_like(none[0])

    def columns(x: jax.Array) -> jax.Array:
        scaled = jnp.where(real, epsilon * x, finite_minus_inf(x.dtype))
        soft = lambda problem, f, _: problem.geometry.softmin(f, epsilon, axis=0)
        return -each(soft, measures, ones, scaled, none) / epsilon

    def rows(x: jax.Array, y: jax.Array):
        soft = lambda problem, _, g: problem.geometry.softmin(g, epsilon, axis=1)
        logs = x - each(soft, measures, ones, f, epsilon * y) / epsilon
        return jnp.where(real, jnp.exp(logs), 0), logs

    return _Operators(columns, rows, f[:1], none[:1])


def _first_rows(measures: Measures, g: jax.Array) -> jax.Array:
    """[K, n] best f for g = 0 [K, m], finite everywhere. One pass a cost."""
    if not measures.shared:
        fit = lambda problem, _, g: dual.row_update(problem, g)
        none = jnp.zeros_like(measures.masses)
        return each(fit, measures, jnp.ones_like(g[0]), none, g)
    real, epsilon = measures.masses > 0, measures.epsilon
    soft = Dense(measures.costs).softmin(g[0], epsilon, axis=1)
    logs = safe_log(jnp.where(real, measures.masses, 1))
    return jnp.where(real, epsilon * logs + soft[None], finite_minus_inf(g.dtype))


def init(measures: Measures) -> BregmanState:
    """Start where all plans have the right rows at g = 0, as published. One pass."""
    number, m = measures.masses.shape[0], measures.costs.shape[-1]
    g = jnp.zeros((number, m), measures.costs.dtype)
    return BregmanState(
        f=_first_rows(measures, g),
        g=g,
        log_mass=g[0],
        error=jnp.asarray(jnp.inf, g.dtype),
        step=jnp.asarray(0, jnp.int32),
        status=loop.as_status(code(Status.RUNNING)),
    )


def judged(measures: Measures, f: jax.Array, g: jax.Array, log_mass: jax.Array):
    """Potentials as they are returned and their error: ([K, n], [K, m], []).

    The gauge is <b, g_k> = 0 for each k, which agrees with sum_k w_k g_k = 0. The
    error is that of the worst of the K plans, not their mean: what a measure of
    weight 0 says about its weight is to be right as well. One pass.
    """
    mass = jnp.exp(log_mass)
    g = g - weighted_sum(measures.weights, g)[None, :]
    for _ in range(2):  # see `dual.centre`
        shift = gauge_shift(g, mass)
        f, g = f + shift, g - shift
    f = jnp.where(measures.masses > 0, f, -jnp.inf)
    rows, columns = each(dual.marginals, measures, mass, f, g)
    missing = jnp.sum(jnp.abs(rows - measures.masses), axis=1)
    missing += jnp.sum(jnp.abs(columns - mass[None, :]), axis=1)
    return f, g, jnp.max(missing / jnp.sum(measures.masses, axis=1))


def gauge_shift(g: jax.Array, mass: jax.Array) -> jax.Array:
    """[K, 1] what g [K, m] has to lose, and f to gain, for <b, g_k> = 0 for each k."""
    return jnp.sum(mass[None, :] * g, axis=1, keepdims=True) / jnp.sum(mass)


def _stepper(measures: Measures, operators: _Operators):
    """The functions x -> `_Steps` and `_Steps` -> `_Steps` on given operators."""
    weights, masses = measures.weights, measures.masses
    real = masses > 0
    log_masses = safe_log(masses)
    totals = jnp.sum(masses, axis=1)
    limit = largest_scaling(masses.dtype)
    noise = machine_epsilon(masses.dtype)
    base = jnp.sum(weights[:, None] * operators.top / measures.epsilon, axis=0)

    def surplus(log_rows: jax.Array) -> jax.Array:
        """[K, n] log of what is wanted over what there is; finite if rows vanish."""
        log = jnp.where(real, log_masses - log_rows, 0)
        return jnp.clip(log, -2 * limit, 2 * limit)

    def fitted(x: jax.Array, step: jax.Array) -> _Steps:
        """Columns that fit x, the mass they have in common, and the rows then."""
        logs = operators.columns(x)
        log_mass = base + weighted_sum(weights, logs)
        y = log_mass[None, :] - logs
        rows, log_rows = operators.rows(x, y)
        missing = jnp.sum(jnp.abs(rows - masses), axis=1)
        error = jnp.max(missing / totals)
        zero = jnp.zeros_like(step)
        return _Steps(x, y, log_mass, rows, log_rows, error, error, zero, step)

    def after(s: _Steps) -> _Steps:
        """Fit the rows, then the columns."""
        change = surplus(s.log_rows)
        new = fitted(s.x + change, s.step + 1)
        # The dual gains sum_i a_i l_i - (total - sum r) by the rows' fit, l the log.
        gain = jnp.sum(masses * change - masses + s.rows, axis=1)
        alive = (new.error < s.best) | jnp.any(gain > 4 * noise * totals)
        return new._replace(
            best=jnp.minimum(new.error, s.best),
            idle=jnp.where(alive, 0, s.idle + 1),
        )

    return surplus, fitted, after


def _steps(measures: Measures, aim, max_steps, state: BregmanState):
    """Potentials after steps on kernels built from those of the state, and the steps.

    On kernels as long as scalings allow. Where a row vanishes on them (it depends on
    entries that were flushed) one step is made in the log domain, and where the
    potentials of the measures are too far apart for one kernel all that are left.
    """
    limit = largest_scaling(measures.costs.dtype)
    epsilon = measures.epsilon
    kernels, x, near = _kernels(measures, state.f)
    spread = lambda x: jnp.max(jnp.abs(jnp.where(measures.masses > 0, x - near, 0)))
    apart = spread(x) > ROOM * limit
    x = jnp.where(apart, jnp.zeros_like(x), x)
    quick, slow = _on_kernels(measures, kernels), _on_costs(measures)
    surplus, fitted, after = _stepper(measures, quick)
    start = fitted(x, state.step)
    lost = jnp.any(jnp.abs(surplus(start.log_rows)) > limit)

    def potentials(operators: _Operators, s: _Steps):
        f = jnp.where(measures.masses > 0, operators.base + epsilon * s.x, state.f)
        return s, f, epsilon * s.y - operators.top

    def running(s: _Steps, most: jax.Array) -> jax.Array:
        return (s.error > aim) & (s.step < most) & (s.idle < IDLE)

    def on_kernels():
        stepping = lambda s: running(s, max_steps) & (spread(s.x) <= limit)
        return potentials(quick, control.while_loop(stepping, after, start))

    def on_costs():
        _, fitted, after = _stepper(measures, slow)
        most = jnp.where(apart, max_steps, jnp.minimum(state.step + 1, max_steps))
        first = fitted(jnp.where(measures.masses > 0, state.f / epsilon, 0), state.step)
        return potentials(
            slow, control.while_loop(lambda s: running(s, most), after, first)
        )

    return control.cond(apart | lost, on_costs, on_kernels)


def update(
    measures: Measures, tolerance: jax.Array, max_steps: jax.Array, state: BregmanState
) -> BregmanState:
    """Absorb, step on the kernels until done or used up, and judge what came of it."""
    aim = inner_tolerance(tolerance)
    end, f, g = _steps(measures, aim, max_steps, state)
    settled = (end.error <= aim) | (end.idle >= IDLE)
    healthy = jnp.all(jnp.isfinite(f)) & jnp.all(jnp.isfinite(g))
    asked = settled | (end.step >= max_steps) | ~healthy
    kept_f, kept_g, error = control.cond(
        asked,
        lambda: judged(measures, f, g, end.log_mass),
        lambda: (f, g, state.error),
    )
    stalled = settled & (error > 0.5 * state.error)
    status = loop.status_at(error, tolerance, end.step, max_steps, stalled)
    status = jnp.where(asked, status, code(Status.RUNNING))
    return BregmanState(
        f=jnp.where(status == code(Status.RUNNING), f, kept_f),
        g=kept_g,
        log_mass=end.log_mass,
        error=error,
        step=end.step.astype(jnp.int32),
        status=loop.as_status(status),
    )


@jax.jit
def run(
    measures: Measures, tolerance: jax.Array, max_steps: jax.Array, valid: jax.Array
) -> BregmanState:
    """Update until the status says why to stop; NaN where there is no answer.

    valid: [] int32 status of the values; nothing is done unless it is RUNNING.
    Cost: two products with each of the K matrices a step, of matrices [K, n] x [n, m]
    where the cost is shared; one kernel a cost beside it.
    """
    start = init(measures)._replace(status=loop.as_status(valid))
    end = loop.run(lambda s: update(measures, tolerance, max_steps, s), start)
    bad = (valid != code(Status.RUNNING)) | (end.status == code(Status.NONFINITE))
    f, g, log_mass = (jnp.where(bad, jnp.nan, v) for v in (end.f, end.g, end.log_mass))
    error = jnp.where(valid == code(Status.RUNNING), end.error, jnp.nan)
    return end._replace(f=f, g=g, log_mass=log_mass, error=error)
