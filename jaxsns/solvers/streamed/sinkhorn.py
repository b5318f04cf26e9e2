"""Sinkhorn's iteration where the plan is never stored: one pass over the costs a sweep.

A block of columns is whole, so its potentials are corrected and its share of the new
row sums is taken in the same pass. Over-relaxation as in `sinkhorn`, with the factor
read off the measured contraction; after a window in which the dual fell the factor
is 1 again.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry import Streamed
from jaxsns.numerics import finite_minus_inf, goal, machine_epsilon, matmul
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.sinkhorn.overrelaxed import (
    PATIENCE,
    WINDOW,
    SinkhornOptions,
    best_omega,
    relaxed,
)
from jaxsns.status import Status, code

LOST = 1e-12  # of the mass a row should have
FAR = 30.0  # log of the factor by which a column is off, above which it is not relaxed


class Swept(NamedTuple):
    """What a pass leaves: columns corrected, and what the rows are now."""

    g: jax.Array  # [m] cost, finite
    rows: jax.Array  # [n] sums
    error: jax.Array  # [] relative L1 error of both marginals
    value: jax.Array  # [] the dual, in cost times mass


class State(NamedTuple):
    """Potentials, and what is known of the iteration."""

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
    recorder: Recorder | None

    @property
    def g(self) -> jax.Array:
        """[m] column potentials."""
        return self.seen.g


@jax.named_scope("pass")
def _pass(problem: Problem, f: jax.Array, g: jax.Array, omega: jax.Array) -> Swept:
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)

    def block(z, given, shared):
        b, rho, g = given
        epsilon, omega = shared
        target = marginal.constraint(b, rho, g, epsilon)
        top = jnp.max(z, axis=1)
        plan = jnp.exp(z - top[:, None])
        sums = jnp.sum(plan, axis=1)
        log_sums = jnp.log(sums) + top + g / epsilon
        off = jnp.where(target.real, target.log - log_sums, 0)
        near = jnp.abs(off) < FAR
        soft = -epsilon * (top + jnp.log(sums))
        exact = marginal.fitted_potential(b, rho, soft, epsilon)
        step = jnp.where(near, omega * target.tau * off, 0)
        new = jnp.where(near, g + epsilon * step, exact)
        log_after = jnp.where(near, log_sums + step, (new - soft) / epsilon)
        after = jnp.where(target.real, jnp.exp(log_after), 0)
        missing = jnp.sum(jnp.abs(after - marginal.target_mass(b, rho, new)))
        rows = matmul(after / sums, plan)
        return (rows, missing), jnp.where(target.real, new, finite_minus_inf(z.dtype))

    inputs = (problem.b, problem.rho_b, g)
    (rows, missing), g = geometry.columns(block, f, epsilon, inputs, (epsilon, omega))
    wanted = marginal.target_mass(problem.a, problem.rho_a, f)
    error = (jnp.sum(jnp.abs(rows - wanted)) + missing) / jnp.sum(wanted)
    value = dual.linear_part(problem, f, g) - epsilon * jnp.sum(rows)
    return Swept(g, rows, error, value)


def run(
    problem: Problem,
    options: SinkhornOptions,
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
    target = goal(tolerance) if options.early_stop else jnp.asarray(-1, dtype)
    noise = WINDOW * machine_epsilon(dtype)

    def sweep(s: State) -> State:
        rows = marginal.constraint(problem.a, problem.rho_a, s.f, problem.epsilon)
        x = jnp.zeros_like(s.f)
        # A sum that has underflowed says nothing: such rows get their best potential.
        lost = rows.real & (s.seen.rows < LOST * rows.mass)
        step = relaxed(rows, x, jnp.where(lost, rows.mass, s.seen.rows), s.omega)[0]
        f = s.f + jnp.where(rows.real, problem.epsilon * step, 0)
        some = jnp.any(lost)
        f = jax.lax.cond(
            some,
            lambda: jnp.where(lost, dual.row_update(problem, s.seen.g), f),
            lambda: f,
        )
        seen = _pass(problem, f, s.seen.g, s.omega)
        full = s.in_window + 1 >= WINDOW
        gain = (seen.value - s.start_value) / jnp.abs(seen.value)
        alive = (seen.error < s.best) | (gain > noise)
        idle = jnp.where(alive, 0, s.idle + 1)
        omega = s.omega
        if options.overrelaxation and options.early_stop:
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
            recorder=recorder.record_step(
                s.recorder, seen.error, running=sweeping(s), passes=counts.passes
            ),
        )

    def sweeping(s: State) -> jax.Array:
        more = (s.seen.error > target) & (s.step < options.max_steps)
        return more & ((s.idle < PATIENCE) | (not options.early_stop))

    def update(s: State) -> State:
        at_work = recorder.at_epsilon(s.recorder, problem.epsilon, s.status)
        s = jax.lax.while_loop(sweeping, sweep, s._replace(recorder=at_work))
        if not options.early_stop:
            status = iteration.verdict(
                s.seen.error, tolerance, s.step, options.max_steps, s.step < 0
            )
            return s._replace(error=s.seen.error, status=status)
        f, g, error, status, passes = iteration.judge(
            problem, s.f, s.seen.g, s.error, jnp.asarray(True), True, s.step, options
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
        status=iteration.as_status(
            jnp.where(asked, code(Status.RUNNING), code(Status.STALLED))
        ),
        counts=iteration.no_counts().plus(passes=1),
        recorder=recorder.at_epsilon(record, problem.epsilon, code(Status.RUNNING)),
    )
    return iteration.run(update, start)
