"""Newton's method where the plan is never stored: one pass over the costs a step.

A pass at row potentials f makes the columns exact and gives the row sums and the mass
from cluster to cluster. Of these and of the largest entries `plan_model` makes a model
of the plan in O((n + m) k) numbers, with the same marginals, on which the whole Newton
method of `newton` runs; its solution is the next f. The model's error is what a step
leaves over: it falls 4 to 10 times a pass on problems where Sinkhorn takes hundreds.
Steps are combined by Anderson's method, which needs no pass of its own.

What is measured decides: lists of largest entries are looked for only where the
clusters alone do not do, and again where old ones have lost their hold.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Streamed, sharding
from jaxsns.linear import anderson
from jaxsns.linear.anderson import Window
from jaxsns.numerics import finite_minus_inf, inner_tolerance, machine_epsilon
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.counts import Counts, no_counts
from jaxsns.recording.history import StepKind
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import kernel_loop, loop
from jaxsns.solvers.continuation import epsilon_at
from jaxsns.solvers.streamed import model_newton
from jaxsns.status import Status, code
from jaxsns.streaming import plan_model
from jaxsns.streaming.clusters import ClusterLayout
from jaxsns.streaming.passes import PassResult, semidual_pass
from jaxsns.streaming.plan_model import KEPT, Pattern

LEVEL_TOLERANCE = 0.05  # relative L1 error before the last level [D24]
# [D24]
SLOW = 0.4  # of the error left by a step: more, and largest entries are looked for
SHORTER = 0.25  # of a step that made things worse [D24]
PATIENCE = 6  # passes without a new least error before rounding is believed in [D24]
LOST = 3e-4  # of the mass a row should have: less, and it is corrected by itself [D24]
SEARCH = 2  # passes that a search for largest entries counts as [D24]


class State(NamedTuple):
    """What the next pass needs."""

    f: jax.Array  # [n] where to look next
    base: jax.Array  # [n] the last f that was accepted
    base_error: jax.Array  # []
    base_value: jax.Array  # []
    best_f: jax.Array  # [n] where the error was least, at this epsilon
    best_g: jax.Array  # [m]
    least: jax.Array  # [] that error
    mark: jax.Array  # [] error that counts as progress no more
    idle: jax.Array  # [] int32 passes without progress
    shorter: jax.Array  # [] int32 times the step was shortened
    repaired: jax.Array  # [] bool: the last pass went into rows that were lost
    history: Window
    pattern: Pattern
    age: jax.Array  # [] int32 steps since the pattern was found
    level: jax.Array  # [] int32
    level_f: jax.Array  # [n] at the end of the level before
    g: jax.Array  # [m]
    error: jax.Array  # [] of f and g at the last verdict
    step: jax.Array  # [] int32
    status: jax.Array
    counts: Counts
    record: Recorder | None = None


def init(problem: Problem, f: jax.Array, count: jax.Array) -> State:
    """Start from finite row potentials f [n], `count` levels above the last."""
    n, m = problem.shape
    zero = jnp.asarray(0, jnp.int32)
    infinite = jnp.asarray(jnp.inf, problem.dtype)
    kept = min(KEPT, n, m)
    return State(
        f=f,
        base=f,
        base_error=infinite,
        base_value=-infinite,
        best_f=f,
        best_g=jnp.zeros_like(problem.b),
        least=infinite,
        mark=infinite,
        idle=zero,
        shorter=zero,
        repaired=jnp.asarray(False),
        history=anderson.empty(n, problem.dtype),
        pattern=plan_model.no_pattern(n, m, kept),
        age=zero,
        level=-count,
        level_f=f,
        g=jnp.zeros_like(problem.b),
        error=infinite,
        step=zero,
        status=loop.as_status(code(Status.RUNNING)),
        counts=no_counts(),
    )


@jax.named_scope("streamed_newton")
def run(
    problem: Problem,
    options: Any,
    state: State,
    shapes: tuple[ClusterLayout, ClusterLayout],
    first_epsilon: jax.Array,
    sparse: jax.Array,
) -> State:
    """Step until the status says why to stop.

    first_epsilon: of the first level; sparse: [] bool, whether largest entries are
    looked for at once.
    """
    count = -state.level

    def at(level):
        return epsilon_at(problem.epsilon, first_epsilon, count, level + count)

    def update(s: State) -> State:
        # What is returned at the limit of steps is judged at the wanted epsilon.
        over = s.step >= options.max_steps
        s = s._replace(level=jnp.where(over, jnp.maximum(s.level, 0), s.level))
        here = problem.with_epsilon(at(s.level))
        last = s.level >= 0
        seen = semidual_pass(here, s.f, shapes)
        s = _noted(here, s, seen)
        floor = dual.rounding_error(here, s.f, seen.g, options.rounding_share)
        tolerance = jnp.maximum(jnp.asarray(options.tolerance, problem.dtype), floor)
        target = jnp.where(
            last, inner_tolerance(tolerance), jnp.maximum(LEVEL_TOLERANCE, tolerance)
        )
        out_of_steps = s.step >= options.max_steps
        done = (seen.error <= target) | out_of_steps | ~jnp.isfinite(seen.error)
        noise = 64 * machine_epsilon(problem.dtype) * jnp.abs(seen.value)
        good = (seen.error <= s.base_error) | (seen.value > s.base_value + noise)
        stuck = s.idle >= PATIENCE
        wanted = marginal.target_mass(here.a, here.rho_a, s.f)
        lost = (seen.rows < LOST * wanted) & (wanted > 0)
        repair = jnp.any(lost) & ~s.repaired
        branch = jnp.where(repair, 3, jnp.where(good | (s.shorter > 2), 1, 2))
        branch = jnp.where(done | stuck, 0, branch)
        s = s._replace(repaired=repair)
        return control.switch(
            branch,
            [
                lambda: _finish(here, options, s, seen, at, s.level > -count),
                lambda: _advance(here, s, seen, shapes, target, sparse),
                lambda: s._replace(
                    f=s.base + SHORTER * (s.f - s.base),
                    shorter=s.shorter + 1,
                    idle=s.idle + 1,
                    history=anderson.cleared(s.history),
                ),
                lambda: s._replace(
                    f=jnp.where(lost, dual.row_update(here, seen.g), s.f),
                    history=anderson.cleared(s.history),
                    counts=s.counts.plus(passes=1),
                ),
            ],
        )

    return loop.run(update, state)


def _noted(problem: Problem, s: State, seen: PassResult) -> State:
    """Count a pass, and keep what it showed if nothing better was seen."""
    better = seen.error < s.least
    n, m = problem.shape
    listed = min(s.pattern.row_index.shape[1] * (n + m) / (n * m), 1.0)
    record = recorder.record_step(
        recorder.at_epsilon(s.record, problem.epsilon, s.status),
        seen.error,
        kind=jnp.asarray(StepKind.MODEL, jnp.int32),
        kept=jnp.where(s.pattern.used, listed, 0),
        passes=s.counts.passes + 1,
        products=s.counts.sparse_steps,
    )
    return s._replace(
        counts=s.counts.plus(passes=1, sweeps=1),
        step=s.step + 1,
        best_f=jnp.where(better, s.f, s.best_f),
        best_g=jnp.where(better, seen.g, s.best_g),
        least=jnp.where(better, seen.error, s.least),
        record=record,
    )


def _advance(
    problem: Problem,
    s: State,
    seen: PassResult,
    shapes: tuple[ClusterLayout, ClusterLayout],
    target: jax.Array,
    sparse: jax.Array,
) -> State:
    """Accept f, and find the next by the model around it."""
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    slow = seen.error > SLOW * s.base_error
    fresh = jnp.isinf(s.base_error)
    unlisted = ~s.pattern.used
    wanted = jnp.where(fresh, sparse & unlisted, slow & ((s.age > 1) | unlisted))
    pattern = control.cond(
        wanted,
        lambda: sharding.replicated(
            geometry.mesh,
            plan_model.find_pattern(
                geometry, s.f, seen.g, epsilon, s.pattern.row_index.shape[1]
            ),
        ),
        lambda: s.pattern,
    )
    history = jax.tree.map(
        lambda u, v: jnp.where(wanted, u, v), anderson.cleared(s.history), s.history
    )
    counts = s.counts.plus(passes=jnp.where(wanted, SEARCH, 0))
    new, counts = model_newton.solve(
        problem, s.f, seen, pattern, shapes, target, counts
    )
    change = new - s.f
    history, mixed = anderson.mix(history, s.f, change, problem.a)
    f = jnp.where(jnp.all(jnp.isfinite(mixed)), mixed, new)
    better = seen.error < 0.8 * s.mark
    return s._replace(
        f=f,
        base=s.f,
        base_error=seen.error,
        base_value=seen.value,
        mark=jnp.where(better, seen.error, s.mark),
        idle=jnp.where(better, 0, s.idle + 1),
        shorter=jnp.asarray(0, jnp.int32),
        history=history,
        pattern=pattern,
        age=jnp.where(wanted, 0, s.age + 1),
        counts=counts,
    )


def _finish(
    problem: Problem,
    options: Any,
    s: State,
    seen: PassResult,
    at: Callable[[jax.Array], jax.Array],
    known: jax.Array,
) -> State:
    """Judge the best at the last epsilon, or go on to the next.

    known: [] bool, whether there was a level before this one.
    """
    last = s.level >= 0
    whole = jnp.isfinite(s.least)
    best = jnp.where(whole, s.best_f, s.f)
    reached = best, jnp.where(whole, s.best_g, seen.g)
    # What the limit of steps cut short has not stalled.
    settled = s.step < options.max_steps
    f, g, error, status, passes = kernel_loop.checked(
        problem, options, reached, s.error, settled, last, s.step
    )
    f = jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype))
    here, after = at(s.level), at(s.level + 1)
    before = at(s.level - 1)
    slope = jnp.where(known & ~last, (after - here) / (here - before), 0)
    ahead = best + slope * (best - s.level_f)
    infinite = jnp.full_like(s.least, jnp.inf)
    zero = jnp.zeros_like(s.idle)
    broken = ~jnp.isfinite(seen.error)
    limit = jnp.where(broken, code(Status.NONFINITE), code(Status.RUNNING))
    return s._replace(
        f=jnp.where(last, f, ahead),
        g=g,
        base=jnp.where(last, f, ahead),
        base_error=infinite,
        base_value=-infinite,
        least=infinite,
        mark=infinite,
        idle=zero,
        shorter=zero,
        history=anderson.cleared(s.history),
        level=s.level + 1,
        level_f=best,
        error=jnp.where(last, error, seen.error),
        status=loop.as_status(jnp.where(last, status, limit)),
        counts=s.counts.plus(passes=passes),
    )
