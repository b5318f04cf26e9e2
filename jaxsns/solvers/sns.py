"""Sinkhorn-Newton-Sparse as published, for comparison with our own method.

Warm-up sweeps in the log domain, then Newton steps on the dual in (f, g) with a
sparsified Hessian (full diagonals), conjugate gradients and Armijo backtracking.
Source: Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao, Ying,
"Accelerating Sinkhorn algorithm with sparse Newton iterations", ICLR 2024,
Algorithm 1. Differences: the threshold on the whole Hessian is replaced by the
largest `kept` entries of each row and of each column, so that shapes are static.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.hessian.schur import inverse_root
from jaxsns.linear import ell
from jaxsns.linear.conjugate_gradient import conjugate_gradient
from jaxsns.numerics import finite_minus_inf, machine_epsilon, vdot
from jaxsns.problem import dual, gauge
from jaxsns.problem.problem import Problem, log_masses
from jaxsns.recording import recorder
from jaxsns.recording.counts import Counts, no_counts
from jaxsns.recording.history import StepKind
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import loop
from jaxsns.status import Status, code

ARMIJO, TRIALS = 1e-4, 30  # [D39]


class SNSState(NamedTuple):
    """What the next update needs."""

    f: jax.Array  # [n] cost
    g: jax.Array  # [m] cost
    error: jax.Array  # [] of f and g
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32
    settled: jax.Array  # [] bool: the last line search found nothing
    counts: Counts
    record: Recorder | None = None


def init(problem: Problem, f: jax.Array | None = None) -> SNSState:
    """Start from row potentials f [n], or from zero."""
    f = jnp.zeros_like(problem.a) if f is None else f
    g = jnp.zeros_like(problem.b)
    return SNSState(
        f=jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype)),
        g=jnp.where(problem.b > 0, g, finite_minus_inf(problem.dtype)),
        error=jnp.asarray(jnp.inf, problem.dtype),
        step=jnp.asarray(0, jnp.int32),
        status=loop.as_status(code(Status.RUNNING)),
        settled=jnp.asarray(False),
        counts=no_counts(),
    )


def _sweep(problem: Problem, options: Any, state: SNSState) -> SNSState:
    del options
    cost, epsilon = problem.geometry.dense(), problem.epsilon
    log_a, log_b = log_masses(problem)
    f, _ = dual.finite(problem, state.f, state.g)
    _, g = dual.finite(problem, f, epsilon * log_b + cost.softmin(f, epsilon, axis=0))
    f, _ = dual.finite(problem, epsilon * log_a + cost.softmin(g, epsilon, axis=1), g)
    return state._replace(f=f, g=g, counts=state.counts.plus(sweeps=1, passes=2))


def _direction(problem: Problem, options: Any, f, g, rows, columns, error):
    """Sparse Newton direction (df, dg), its slope, and the products it took."""
    cost, epsilon = problem.geometry.dense(), problem.epsilon
    n, m = problem.shape
    by_row = cost.largest(f, g, epsilon, min(options.kept, m), axis=1)
    by_column = cost.largest(f, g, epsilon, min(options.kept, n), axis=0)
    kept = min(options.kept, n, m)
    sparse = ell.unite(
        jnp.exp(by_row.log[:, :kept]),
        by_row.indices[:, :kept],
        jnp.exp(by_column.log[:, :kept]),
        by_column.indices[:, :kept],
    )
    # Scaled to a unit diagonal, and with the gauge (1, -1) pinned.
    left, right = inverse_root(rows), inverse_root(columns)
    pin = jnp.concatenate([jnp.sqrt(rows), -jnp.sqrt(columns)])
    pin = pin / jnp.sqrt(vdot(pin, pin))

    def product(z):
        u, v = z[:n], z[n:]
        top = u + left * sparse.times(right * v)
        bottom = v + right * sparse.transpose_times(left * u)
        return jnp.concatenate([top, bottom]) + pin * vdot(pin, z)

    gradient = (problem.a - rows, problem.b - columns)
    rhs = jnp.concatenate([left * gradient[0], right * gradient[1]])
    rhs = rhs - pin * vdot(pin, rhs)
    accuracy = jnp.clip(error, 1e-8, 1e-2)
    end = conjugate_gradient(product, rhs, lambda v: v, accuracy, 10 * (n + m))
    df, dg = epsilon * left * end.x[:n], epsilon * right * end.x[n:]
    slope = vdot(gradient[0], df) + vdot(gradient[1], dg)
    return df, dg, slope, end.steps


def _newton(problem: Problem, options: Any, state: SNSState) -> SNSState:
    f, g = state.f, state.g

    def semidual_pass(f, g):
        rows, columns = dual.marginals(problem, f, g)
        missing = jnp.sum(jnp.abs(rows - problem.a))
        missing = missing + jnp.sum(jnp.abs(columns - problem.b))
        excess = problem.epsilon * jnp.sum(rows)
        return rows, columns, missing / jnp.sum(problem.a), excess

    rows, columns, error, excess = semidual_pass(f, g)
    df, dg, slope, products = _direction(problem, options, f, g, rows, columns, error)
    noise = 100 * machine_epsilon(problem.dtype) * problem.epsilon * jnp.sum(problem.a)

    def attempt(trial):
        number, length, *_ = trial
        new_f, new_g = f + length * df, g + length * dg
        _, _, new_error, new_excess = semidual_pass(new_f, new_g)
        linear = gauge.weighted(problem.a, length * df)
        linear = linear + gauge.weighted(problem.b, length * dg)
        gain = linear - (new_excess - excess)
        # Below rounding the value says nothing; then the error has to fall clearly.
        good = jnp.where(
            length * slope > noise,
            (gain >= ARMIJO * length * slope) & jnp.isfinite(new_error),
            new_error < 0.9 * error,
        )
        return number + 1, length / 2, new_f, new_g, good

    start = (jnp.asarray(0, jnp.int32), jnp.ones_like(error), f, g, jnp.asarray(False))
    tried, _, new_f, new_g, good = control.while_loop(
        lambda t: ~t[-1] & (t[0] < TRIALS), attempt, start
    )
    return state._replace(
        f=jnp.where(good, new_f, f),
        g=jnp.where(good, new_g, g),
        settled=~good,
        counts=state.counts.plus(
            newton_steps=1, linear_steps=products, passes=3 + tried
        ),
    )


def update(problem: Problem, options: Any, state: SNSState) -> SNSState:
    """One warm-up sweep or one Newton step, then the exact error and the verdict."""
    moved = control.cond(
        state.counts.sweeps < options.warm_up,
        functools.partial(_sweep, problem, options),
        functools.partial(_newton, problem, options),
        state,
    )
    error = dual.marginal_error(problem, moved.f, moved.g)
    step = state.step + 1
    status = loop.status_at(
        error,
        jnp.maximum(
            jnp.asarray(options.tolerance, problem.dtype),
            dual.rounding_error(problem, moved.f, moved.g, options.rounding_share),
        ),
        step,
        options.max_steps,
        moved.settled,
    )
    counts = moved.counts.plus(passes=1)
    swept = moved.counts.newton_steps == state.counts.newton_steps
    kind = jnp.where(swept, StepKind.SWEEP, StepKind.SPARSE).astype(jnp.int32)
    n, m = problem.shape
    kept = min(options.kept * (n + m) / (n * m), 1.0)  # at most: lists may overlap
    noted = recorder.record_step(
        recorder.at_epsilon(state.record, problem.epsilon, state.status),
        error,
        kind=kind,
        kept=jnp.where(swept, 1, kept),
        passes=counts.passes,
        products=counts.linear_steps,
    )
    return moved._replace(
        error=error, step=step, status=status, counts=counts, record=noted
    )


def run(problem: Problem, options: Any, state: SNSState) -> SNSState:
    """Update until the status says why to stop, and check what is returned."""
    end = loop.run(lambda s: update(problem, options, s), state)
    f, g, error = dual.centred_with_error(problem, end.f, end.g)
    floor = dual.rounding_error(problem, f, g, options.rounding_share)
    missed = (end.status == code(Status.CONVERGED)) & (
        error > jnp.maximum(options.tolerance, floor)
    )
    return end._replace(
        f=f,
        g=g,
        error=error,
        status=loop.as_status(jnp.where(missed, code(Status.STALLED), end.status)),
        settled=jnp.asarray(False),
        counts=end.counts.plus(passes=1),
    )
