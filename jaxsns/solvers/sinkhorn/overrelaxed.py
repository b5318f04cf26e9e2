"""Sinkhorn's iteration with safeguarded over-relaxation on an absorbed kernel.

One update absorbs the potentials into a kernel (an exponential pass) and sweeps on
it with log scalings near 0, two matrix-vector products a sweep, until the error is
small enough or a scaling is too large for the kernel; the next update absorbs
again, measures the exact error of the potentials it would return, and decides.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import goal, largest_scaling, machine_epsilon
from jaxsns.problem import dual, marginal
from jaxsns.problem.marginal import MarginalConstraint
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import Counts
from jaxsns.status import Status, code

WINDOW = 20  # sweeps over which a contraction is measured
PATIENCE = 4  # windows without progress before over-relaxation is given up


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps"),
    meta_fields=("overrelaxation", "early_stop"),
)
@dataclasses.dataclass(frozen=True)
class SinkhornOptions:
    """Numbers are data: changing them compiles nothing again."""

    tolerance: float | jax.Array = 1e-9  # relative L1 error of both marginals
    max_steps: int | jax.Array = 20_000  # sweeps
    overrelaxation: bool = True
    early_stop: bool = True  # False: exactly max_steps plain sweeps


class SinkhornState(NamedTuple):
    """What the next update needs."""

    f: jax.Array  # [n] cost
    g: jax.Array  # [m] cost
    error: jax.Array  # [] of f and g at the last verdict
    step: jax.Array  # [] int32 sweeps
    status: jax.Array  # [] int32
    omega: jax.Array  # [] relaxation factor in [1, 2)
    counts: Counts
    recorder: Recorder | None = None


class _Sweeps(NamedTuple):
    x: jax.Array
    y: jax.Array
    rows: jax.Array  # [n] row sums at x, y
    error: jax.Array  # [] exact at x, y
    omega: jax.Array
    in_window: jax.Array  # [] int32 sweeps since the window began
    start_error: jax.Array  # [] at the beginning of the window
    gain: jax.Array  # [] relative gain of the dual in the window
    best: jax.Array  # [] least error before the window
    idle: jax.Array  # [] int32 windows in a row without progress
    step: jax.Array
    recorder: Recorder | None


def init(problem: Problem, f: jax.Array | None = None) -> SinkhornState:
    """Start from row potentials f [n], or from zero."""
    f = jnp.zeros_like(problem.a) if f is None else f
    return SinkhornState(
        f=f,
        g=jnp.zeros_like(problem.b),
        error=jnp.asarray(jnp.inf, problem.dtype),
        step=jnp.asarray(0, jnp.int32),
        status=iteration.as_status(code(Status.RUNNING)),
        omega=jnp.asarray(1, problem.dtype),
        counts=iteration.no_counts(),
    )


def relaxed(
    target: MarginalConstraint, x: jax.Array, sums: jax.Array, omega: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Change of a log scaling x, omega tau log(wanted / sums), and the dual's gain.

    Where equality is asked for the dual gains sum_i a_i omega l_i - r_i (exp(omega
    l_i) - 1) by it, l the logarithm; a factor under which it would fall is replaced
    by 1, under which it never does. Source: Lehmann et al., "A note on
    overrelaxation in the Sinkhorn algorithm" (2020), with the exact gain in place of
    their bound.
    """
    real = target.real
    wanted = target.at(x)
    log = jnp.where(real, jnp.log(wanted / jnp.where(real, sums, 1)), 0)
    step = target.tau * log

    def gain(factor):
        plan = jnp.sum(sums * jnp.expm1(factor * step))
        return target.gain(x, x + factor * step) - plan

    factor = jnp.where(gain(omega) >= 0, omega, 1)
    return factor * step, gain(factor)


def best_omega(omega: jax.Array, decay: jax.Array) -> jax.Array:
    """Optimal factor for the contraction that a decay per sweep reveals.

    Sinkhorn contracts at rho; with factor w the error decays at lam, where
    (lam + w - 1)^2 = w^2 rho lam as long as lam > w - 1 (Young, 1954). At or below
    w - 1 the factor is at least the optimum, and nothing can be read off.
    """
    rho = (decay + omega - 1) ** 2 / (omega**2 * decay)
    limit = 1 - 64 * machine_epsilon(decay.dtype)
    rho = jnp.clip(rho, 0, limit)
    new = 2 / (1 + jnp.sqrt(1 - rho))
    telling = jnp.isfinite(decay) & (decay > 1.001 * (omega - 1)) & (decay < 1)
    return jnp.where(telling, new, omega)


@jax.named_scope("sinkhorn")
def update(
    problem: Problem,
    options: SinkhornOptions,
    state: SinkhornState,
    last: ArrayLike = True,
) -> SinkhornState:
    """Absorb, sweep on the kernel, and at the last epsilon judge what came of it."""
    dtype = problem.dtype
    tolerance = jnp.asarray(options.tolerance, dtype)
    absorbed = dual.absorb(problem, dual.translated(problem, state.f, state.g))
    kernel = absorbed.kernel
    a, b = absorbed.row_target, absorbed.column_target
    total = jnp.sum(a.mass)
    error = dual.row_error(absorbed)
    target = goal(tolerance)

    def sweep(s: _Sweeps) -> _Sweeps:
        step_x, gain_x = relaxed(a, s.x, s.rows, s.omega)
        x = s.x + step_x
        columns = jnp.exp(s.y) * kernel.transpose_times(jnp.exp(x))
        step_y, gain_y = relaxed(b, s.y, columns, s.omega)
        y = s.y + step_y
        after = columns * jnp.exp(step_y)
        gain = s.gain + (gain_x + gain_y) / total
        if not problem.balanced:
            constant = marginal.translation(a, b, x, y)
            x, y = x + constant, y - constant
        rows = dual.rows_for(kernel, x, y)
        wanted = a.at(x)
        missing = jnp.sum(jnp.abs(after - b.at(y))) + jnp.sum(jnp.abs(rows - wanted))
        error = missing / jnp.sum(wanted)
        passes = state.counts.passes + 1
        noted = recorder.record_step(
            s.recorder, error, running=sweeping(s), passes=passes
        )
        moved = _Sweeps(
            x, y, rows, error, s.omega, s.in_window + 1, s.start_error, gain, s.best,
            s.idle, s.step + 1, noted,
        )  # fmt: skip
        return _end_of_window(moved, options.overrelaxation)

    def sweeping(s: _Sweeps) -> jax.Array:
        small = jnp.max(jnp.abs(s.x)) <= largest_scaling(dtype)
        more = (
            (s.error > target) & (s.step < options.max_steps) & (s.idle < PATIENCE + 2)
        )
        return more & small

    zero = jnp.asarray(0, jnp.int32)
    x = jnp.zeros_like(a.mass)
    start = _Sweeps(
        x, absorbed.y, absorbed.rows, error, state.omega, zero, error, x[0], error,
        zero, state.step, recorder.at_epsilon(state.recorder, problem.epsilon, state.status),
    )  # fmt: skip
    end = jax.lax.while_loop(sweeping, sweep, start)
    new_f = absorbed.f + problem.epsilon * end.x
    settled = ~(end.error > target) | (end.idle >= PATIENCE + 2)
    healthy = jnp.all(jnp.isfinite(new_f))
    f, g, error, status, passes = iteration.judge(
        problem,
        jnp.where(healthy, new_f, absorbed.f),
        problem.epsilon * end.y - absorbed.top,
        state.error,
        settled,
        last,
        end.step,
        options,
        absorbed,
        jnp.where(healthy, end.error, jnp.nan),
    )
    counts = state.counts.plus(sweeps=end.step - state.step, passes=1 + passes)
    return SinkhornState(f, g, error, end.step, status, end.omega, counts, end.recorder)


def _end_of_window(s: _Sweeps, overrelaxation: bool) -> _Sweeps:
    """Read the contraction off a full window and choose the next factor by it."""
    full = s.in_window >= WINDOW
    # Over-relaxed errors rise and fall over several windows, plain ones only fall:
    # after PATIENCE windows without progress go back to the plain iteration, and
    # believe in rounding if that stands still too.
    noise = WINDOW * machine_epsilon(s.error.dtype)
    alive = (s.error < s.best) | (s.gain > noise)
    idle = jnp.where(alive, 0, s.idle + 1)
    omega = s.omega
    if overrelaxation:
        decay = (s.error / s.start_error) ** (1 / WINDOW)
        measured = jnp.where(idle >= PATIENCE, 1, best_omega(omega, decay))
        omega = jnp.where(full, measured, omega)
    return s._replace(
        omega=omega,
        in_window=jnp.where(full, 0, s.in_window),
        start_error=jnp.where(full, s.error, s.start_error),
        gain=jnp.where(full, 0, s.gain),
        best=jnp.where(full, jnp.minimum(s.error, s.best), s.best),
        idle=jnp.where(full, idle, s.idle),
    )


def run(
    problem: Problem, options: SinkhornOptions, state: SinkhornState
) -> SinkhornState:
    """Update until the status says why to stop."""
    return iteration.run(lambda s: update(problem, options, s), state)
