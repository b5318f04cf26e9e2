"""Sinkhorn's iteration where the plan is never stored: one pass over the costs a sweep.

A block of columns is whole, so its potentials are corrected and its share of the new
row sums is taken in the same pass. Over-relaxation as in `sinkhorn`, with the factor
read off the measured contraction; after a window in which the dual fell the factor
is 1 again.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.geometry import Streamed
from jaxsns.numerics import (
    finite_minus_inf,
    inner_tolerance,
    machine_epsilon,
    matmul,
    safe_log,
)
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.counts import Counts, no_counts
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import kernel_loop, loop
from jaxsns.solvers.sinkhorn.acceleration import best_omega
from jaxsns.solvers.sinkhorn.overrelaxed import (
    PLAIN_AFTER,
    WINDOW,
    relaxed,
)
from jaxsns.status import Status, code

LOST = 1e-12  # of the mass a row should have [D24]
# [D24]
FAR = 30.0  # log of the factor by which a column is off, above which it is not relaxed


class Swept(NamedTuple):
    """What a pass leaves: columns corrected, and what the rows are now."""

    g: jax.Array  # [m] cost, finite
    rows: jax.Array  # [n] sums
    error: jax.Array  # [] relative L1 error of both marginals
    value: jax.Array  # [] the dual, in cost times mass


class State(NamedTuple):
    """Potentials, and what is known of the loop."""

    f: jax.Array  # [n] cost, finite
    seen: Swept
    omega: jax.Array  # [] relaxation factor in [1, 2)
    in_window: jax.Array  # [] int32
    start_error: jax.Array  # [] at the beginning of the window
    start_value: jax.Array  # []
    best: jax.Array  # [] least error before the window
    idle: jax.Array  # [] int32 windows without progress
    error: jax.Array  # [] of f and g at the last verdict
    step: jax.Array  # [] int32
    status: jax.Array
    counts: Counts
    record: Recorder | None

    @property
    def g(self) -> jax.Array:
        """[m] column potentials."""
        return self.seen.g


def _columns_corrected(top: jax.Array, log_rest: jax.Array, given: Any, shared: Any):
    """[k] new g, sums of the columns after the step, and [] how far these are off.

    top + log_rest: [k] logarithms of the sums of exp(z), in two parts.
    """
    b, rho, g = given
    epsilon, omega = shared
    target = marginal.constraint(b, rho, g, epsilon)
    log_sums = log_rest + top + g / epsilon
    off = jnp.where(target.real, target.log - log_sums, 0)
    near = jnp.abs(off) < FAR
    soft = -epsilon * (top + log_rest)
    exact = marginal.fitted_potential(b, rho, soft, epsilon)
    step = jnp.where(near, omega * target.tau * off, 0)
    new = jnp.where(near, g + epsilon * step, exact)
    log_after = jnp.where(near, log_sums + step, (new - soft) / epsilon)
    after = jnp.where(target.real, jnp.exp(log_after), 0)
    missing = jnp.sum(jnp.abs(after - marginal.target_mass(b, rho, new)))
    return jnp.where(target.real, new, finite_minus_inf(new.dtype)), after, missing


@jax.named_scope("pass")
def _pass(problem: Problem, f: jax.Array, g: jax.Array, omega: jax.Array) -> Swept:
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    low = finite_minus_inf(f.dtype)

    def block(z, given, shared):
        top = jnp.max(z, axis=1)
        plan = jnp.exp(z - top[:, None])
        sums = jnp.sum(plan, axis=1)
        new, after, missing = _columns_corrected(top, jnp.log(sums), given, shared)
        return (matmul(after / sums, plan), missing), new

    inputs, shared = (problem.b, problem.rho_b, g), (epsilon, omega)
    if geometry.pallas:
        log_sums = -geometry.softmin(f, epsilon, 0) / epsilon
        zero = jnp.zeros_like(log_sums)
        g, after, missing = _columns_corrected(log_sums, zero, inputs, shared)
        weight = jnp.where(after > 0, safe_log(after) - log_sums, low)
        rows = jnp.exp((f - geometry.softmin(epsilon * weight, epsilon, 1)) / epsilon)
    else:
        (rows, missing), g = geometry.columns(block, f, epsilon, inputs, shared)
    wanted = marginal.target_mass(problem.a, problem.rho_a, f)
    total = dual.judged_total(problem, jnp.sum(wanted))
    error = (jnp.sum(jnp.abs(rows - wanted)) + missing) / total
    value = dual.linear_part(problem, f, g) - epsilon * jnp.sum(rows)
    return Swept(g, rows, error, value)


def _rows_corrected(problem: Problem, f: jax.Array, seen: Swept, omega: jax.Array):
    """[n] f with its rows corrected by what a pass showed, and [] whether by a pass.

    A sum that has underflowed says nothing: such rows get their best potential.
    """
    rows = marginal.constraint(problem.a, problem.rho_a, f, problem.epsilon)
    # What is wanted may underflow as well, so a sum of 0 is lost whatever that is.
    lost = (seen.rows < LOST * rows.mass) | (seen.rows == 0)
    # Potentials of another rho, or of noise, give sums that overflow.
    lost = rows.real & (lost | ~jnp.isfinite(seen.rows))
    sums = jnp.where(lost, rows.mass, seen.rows)
    zero = jnp.zeros_like(f)
    plain = rows.tau * rows.surplus(zero, sums)  # no kernel limits it
    step = relaxed(rows, zero, sums, plain, omega)[0]
    new = f + jnp.where(rows.real, problem.epsilon * step, 0)
    some = jnp.any(lost)
    new = control.cond(
        some,
        lambda: jnp.where(lost, dual.row_update(problem, seen.g), new),
        lambda: new,
    )
    return new, some


def fixed_number(problem: Problem, options: Any, start: jax.Array, columns_last: bool):
    """Make exactly `max_steps` plain sweeps, and check what they left.

    start: potential of the side that ends exact, f [n] finite or, if `columns_last`,
    g [m]. Returns f, g, error, status, counts. A pass a sweep.
    """
    one = jnp.ones((), problem.dtype)
    zero = jnp.asarray(0, jnp.int32)
    low = jnp.full_like(problem.b, finite_minus_inf(problem.dtype))
    begun = 1 if columns_last else 0  # the last sweep ends after the loop then
    f = dual.row_update(problem, start) if columns_last else start

    def sweep(s):
        f, _, step = s
        seen = _pass(problem, f, low, one)
        # The damped step of a penalised side is the whole step on its own constraint.
        new, _ = _rows_corrected(problem, f, seen, one)
        return new, seen.g, step + 1

    more = lambda s: s[2] < options.max_steps - begun
    f, g, step = control.while_loop(more, sweep, (f, low, zero))
    if columns_last:
        g = _pass(problem, f, low, one).g
    step = step + begun
    f, g, error = dual.centred_with_error(problem, f, g)
    floor = dual.rounding_error(problem, f, g, options.rounding_share)
    tolerance = jnp.maximum(jnp.asarray(options.tolerance, problem.dtype), floor)
    status = loop.status_at(
        error, tolerance, step, options.max_steps, jnp.asarray(False)
    )
    counts = no_counts().plus(sweeps=step, passes=step + 1)
    return f, g, error, status, counts


def run(
    problem: Problem,
    options: Any,
    f: jax.Array,
    record: Recorder | None = None,
    asked: ArrayLike = True,
) -> State:
    """Sweep from finite row potentials f [n] until the status says why to stop.

    asked: [] bool; if not, nothing is swept.
    """
    dtype = problem.dtype
    one, zero = jnp.asarray(1, dtype), jnp.asarray(0, jnp.int32)
    tolerance = jnp.asarray(options.tolerance, dtype)
    noise = WINDOW * machine_epsilon(dtype)

    def sweep(s: State) -> State:
        f, some = _rows_corrected(problem, s.f, s.seen, s.omega)
        seen = _pass(problem, f, s.seen.g, s.omega)
        full = s.in_window + 1 >= WINDOW
        gain = (seen.value - s.start_value) / jnp.abs(seen.value)
        alive = (seen.error < s.best) | (gain > noise)
        idle = jnp.where(alive, 0, s.idle + 1)
        omega = s.omega
        if options.overrelaxation:
            decay = (seen.error / s.start_error) ** (1 / WINDOW)
            omega = jnp.where(gain < -noise, 1, best_omega(omega, decay))
            omega = jnp.where(full, jnp.where(idle > 0, 1, omega), s.omega)
        counts = s.counts.plus(sweeps=1, passes=jnp.where(some, 2, 1))
        return s._replace(
            f=f,
            seen=seen,
            omega=omega,
            in_window=jnp.where(full, 0, s.in_window + 1),
            start_error=jnp.where(full, seen.error, s.start_error),
            start_value=jnp.where(full, seen.value, s.start_value),
            best=jnp.where(full, jnp.minimum(seen.error, s.best), s.best),
            idle=jnp.where(full, idle, s.idle),
            step=s.step + 1,
            counts=counts,
            record=recorder.record_step(
                s.record, seen.error, running=sweeping(s), passes=counts.passes
            ),
        )

    def sweeping(s: State) -> jax.Array:
        floor = dual.rounding_error(problem, s.f, s.seen.g, options.rounding_share)
        target = inner_tolerance(jnp.maximum(tolerance, floor))
        # Of potentials at which sums overflow nothing is known yet.
        finite = jnp.all(jnp.isfinite(s.f)) & jnp.all(jnp.isfinite(s.seen.g))
        unknown = finite & ~jnp.isfinite(s.seen.error)
        more = ((s.seen.error > target) | unknown) & (s.step < options.max_steps)
        return more & (s.idle < PLAIN_AFTER)

    def update(s: State) -> State:
        at_work = recorder.at_epsilon(s.record, problem.epsilon, s.status)
        s = control.while_loop(sweeping, sweep, s._replace(record=at_work))
        f, g, error, status, passes = kernel_loop.checked(
            problem, options, (s.f, s.seen.g), s.error, jnp.asarray(True), True, s.step
        )
        low = finite_minus_inf(dtype)
        return s._replace(
            f=jnp.where(problem.a > 0, f, low),
            seen=s.seen._replace(g=jnp.where(problem.b > 0, g, low)),
            idle=zero,
            error=error,
            status=status,
            counts=s.counts.plus(passes=passes),
        )

    seen = _pass(problem, f, jnp.full_like(problem.b, finite_minus_inf(dtype)), one)
    start = State(
        f=f,
        seen=seen,
        omega=one,
        in_window=zero,
        start_error=seen.error,
        start_value=seen.value,
        best=seen.error,
        idle=zero,
        error=jnp.asarray(jnp.inf, dtype),
        step=zero,
        status=loop.as_status(
            jnp.where(asked, code(Status.RUNNING), code(Status.STALLED))
        ),
        counts=no_counts().plus(passes=1),
        record=recorder.at_epsilon(record, problem.epsilon, code(Status.RUNNING)),
    )
    return loop.run(update, start)
