"""Iterative Bregman projections for the barycentre on a fixed support.

    minimise  sum_k w_k (<C_k, P_k> + epsilon sum P_k (log P_k - 1))
    over b and P_k >= 0 with P_k 1 = a_k and P_k^T 1 = b

At the optimum P_k = exp((f_k + g_k - C_k) / epsilon) with sum_k w_k g_k = 0. One
step fits all f_k to the rows, then all g_k and b to the columns together: b is the
geometric mean of the column sums. It runs on absorbed kernels, like Sinkhorn's.
Source: Benamou, Carlier, Cuturi, Nenna, Peyre, "Iterative Bregman projections for
regularized transportation problems" (2015), section 3.2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.numerics import (
    inner_tolerance,
    largest_scaling,
    machine_epsilon,
    safe_log,
)
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.solvers import loop
from jaxsns.status import Status, code

IDLE = 100  # steps without a new least error after which a kernel is left


class Measures(NamedTuple):
    """K measures and what it costs to move them to one support, arrays of one dtype."""

    costs: jax.Array  # [K, n, m]
    masses: jax.Array  # [K, n], equal totals, some may be zero
    weights: jax.Array  # [K], total 1
    epsilon: jax.Array  # []


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
    error: jax.Array
    best: jax.Array
    idle: jax.Array
    step: jax.Array


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """[m] sum_k w_k v_k of values [K, m]."""
    return jnp.sum(weights[:, None] * values, axis=0)


def problem_of(costs, masses, mass, epsilon) -> Problem:
    """Transport of one measure to the barycentre; under `vmap` of all."""
    return Problem(Dense(costs), masses, mass, epsilon)


def each(function, measures: Measures, mass: jax.Array, f: jax.Array, g: jax.Array):
    """Apply a function of (problem, f, g), one of `dual`, to all K of them."""

    def one(cost, masses, f, g):
        return function(problem_of(cost, masses, mass, measures.epsilon), f, g)

    return jax.vmap(one)(measures.costs, measures.masses, f, g)


def _fitted_rows(measures: Measures, g: jax.Array) -> jax.Array:
    """[K, n] best f for given g in the log domain, finite everywhere. One pass."""
    ones = jnp.ones_like(measures.costs[0, 0])

    def one(cost, masses, g):
        return dual.row_update(problem_of(cost, masses, ones, measures.epsilon), g)

    return jax.vmap(one)(measures.costs, measures.masses, g)


def init(measures: Measures) -> BregmanState:
    """Start where all plans have the right rows at g = 0, as published. One pass."""
    g = jnp.zeros_like(measures.costs[:, 0, :])
    return BregmanState(
        f=_fitted_rows(measures, g),
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


def update(
    measures: Measures, tolerance: jax.Array, max_steps: jax.Array, state: BregmanState
) -> BregmanState:
    """Absorb, step on the kernels until done or used up, and judge what came of it."""
    dtype = measures.costs.dtype
    epsilon, weights = measures.epsilon, measures.weights
    real = measures.masses > 0
    log_masses = safe_log(measures.masses)
    totals = jnp.sum(measures.masses, axis=1)
    limit = largest_scaling(dtype)
    aim = inner_tolerance(tolerance)
    noise = machine_epsilon(dtype)
    kernels, top = jax.vmap(lambda c, f: Dense(c).absorb(f, epsilon))(
        measures.costs, state.f
    )
    base = weighted_sum(weights, top / epsilon)

    def fit(x: jax.Array):
        """Columns that fit x, the mass they have in common, and the rows then."""
        sums = jax.vmap(DenseKernel.transpose_times)(kernels, jnp.exp(x))
        logs = jnp.log(sums)
        log_mass = base + weighted_sum(weights, logs)
        y = log_mass[None, :] - logs
        rows = jnp.exp(x) * jax.vmap(DenseKernel.times)(kernels, jnp.exp(y))
        missing = jnp.sum(jnp.abs(rows - measures.masses), axis=1)
        return y, log_mass, rows, jnp.max(missing / totals)

    def surplus(rows: jax.Array) -> jax.Array:
        """[K, n] log of what is wanted over what there is; finite if rows vanish."""
        log = jnp.where(real, log_masses - jnp.log(rows), 0)
        return jnp.clip(log, -2 * limit, 2 * limit)

    def step(s: _Steps) -> _Steps:
        change = surplus(s.rows)
        x = s.x + change
        y, log_mass, rows, error = fit(x)
        # The dual gains sum_i a_i l_i - (total - sum r) by the rows' fit, l the log.
        gain = jnp.sum(measures.masses * change - measures.masses + s.rows, axis=1)
        alive = (error < s.best) | jnp.any(gain > 4 * noise * totals)
        return _Steps(
            x=x,
            y=y,
            log_mass=log_mass,
            rows=rows,
            error=error,
            best=jnp.minimum(error, s.best),
            idle=jnp.where(alive, 0, s.idle + 1),
            step=s.step + 1,
        )

    def stepping(s: _Steps) -> jax.Array:
        small = jnp.max(jnp.abs(s.x)) <= limit
        return (s.error > aim) & (s.step < max_steps) & (s.idle < IDLE) & small

    x = jnp.zeros_like(state.f)
    y, log_mass, rows, error = fit(x)
    zero = jnp.zeros_like(state.step)
    start = _Steps(x, y, log_mass, rows, error, error, zero, state.step)
    # Rows that (nearly) vanish on a kernel depend on what was flushed in it: such a
    # step is made in the log domain.
    lost = jnp.any(jnp.abs(surplus(rows)) > limit) & (state.step < max_steps)
    end = jax.lax.while_loop(lambda s: ~lost & stepping(s), step, start)
    g = epsilon * end.y - top
    f = jax.lax.cond(
        lost,
        lambda: _fitted_rows(measures, g),
        lambda: state.f + epsilon * end.x,
    )
    steps = end.step + jnp.where(lost, 1, 0)
    settled = ~lost & ((end.error <= aim) | (end.idle >= IDLE))
    healthy = jnp.all(jnp.isfinite(f)) & jnp.all(jnp.isfinite(g))
    asked = settled | (steps >= max_steps) | ~healthy
    kept_f, kept_g, error = jax.lax.cond(
        asked,
        lambda: judged(measures, f, g, end.log_mass),
        lambda: (f, g, state.error),
    )
    stalled = settled & (error > 0.5 * state.error)
    status = loop.status_at(error, tolerance, steps, max_steps, stalled)
    status = jnp.where(asked, status, code(Status.RUNNING))
    return BregmanState(
        f=jnp.where(status == code(Status.RUNNING), f, kept_f),
        g=kept_g,
        log_mass=end.log_mass,
        error=error,
        step=steps.astype(jnp.int32),
        status=loop.as_status(status),
    )


@jax.jit
def run(
    measures: Measures, tolerance: jax.Array, max_steps: jax.Array, valid: jax.Array
) -> BregmanState:
    """Update until the status says why to stop; NaN where there is no answer.

    valid: [] int32 status of the values; nothing is done unless it is RUNNING.
    Cost: two products with each of the K matrices a step; two arrays of the size of
    all costs beside them.
    """
    start = init(measures)._replace(status=loop.as_status(valid))
    end = loop.run(lambda s: update(measures, tolerance, max_steps, s), start)
    bad = (valid != code(Status.RUNNING)) | (end.status == code(Status.NONFINITE))
    f, g, log_mass = (jnp.where(bad, jnp.nan, v) for v in (end.f, end.g, end.log_mass))
    error = jnp.where(valid == code(Status.RUNNING), end.error, jnp.nan)
    return end._replace(f=f, g=g, log_mass=log_mass, error=error)
