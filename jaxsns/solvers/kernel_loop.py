"""The frame of every method on a stored or separable cost: absorb, step, stop, check.

Two loops. The inner one makes steps on one stabilised kernel, each a few products. The
outer one builds the next kernel from the potentials that were reached, at the epsilon
that `continuation` says, and checks the potentials at the last epsilon by one pass.
A method is the step that the inner loop makes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import finite_minus_inf, inner_tolerance, largest_scaling
from jaxsns.problem import dual, gauge, stabilised
from jaxsns.problem.problem import Problem
from jaxsns.problem.stabilised import Iterate, KernelProblem
from jaxsns.recording import recorder
from jaxsns.recording.counts import Counts, no_counts
from jaxsns.recording.history import StepKind
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import continuation
from jaxsns.solvers.continuation import Path
from jaxsns.solvers.loop import as_status, run, status_at
from jaxsns.status import Status, code

NOISE = 16  # machine epsilons of what is rounded: a gain below it is rounding [D10]
# [D06]
OVERFLOW = 20.0  # log of a target mass over the mass that is given: no kernel holds it


class Limits(NamedTuple):
    """Numbers that stop the steps on a kernel, and choose them."""

    target: jax.Array  # [] error to reach on the kernel
    max_steps: jax.Array  # [] int32
    patience: jax.Array  # [] sweeps predicted, up to which Newton does not begin
    may_give_up: jax.Array  # [] bool: a direct attempt, beside which there is a path


class KernelState(NamedTuple):
    """Where the steps on one kernel stand."""

    iterate: Iterate
    memory: Any  # of the method
    contraction: jax.Array  # [] of the error by the last step
    first_error: jax.Array  # [] before the first step on this kernel
    least: jax.Array  # [] error reached on this kernel
    idle: jax.Array  # [] int32 steps without progress
    begun: jax.Array  # [] int32 step at which the kernel was built
    step: jax.Array  # [] int32
    counts: Counts
    record: Recorder | None


class StepRecord(NamedTuple):
    """What a step was, for the record."""

    kind: jax.Array  # [] int32, a StepKind
    shift: jax.Array  # [] of the Newton matrix


class Moved(NamedTuple):
    """What a step of a method leaves."""

    iterate: Iterate
    memory: Any
    gain: jax.Array  # [] of the dual over epsilon, in mass
    counts: Counts
    record: StepRecord


class Method(NamedTuple):
    """How steps are made. Static: its functions are part of the program."""

    start: Callable[[Problem, KernelProblem], Iterate]  # at x = 0
    memory: Callable[[jnp.dtype, Any], Any]  # at a new kernel, from the one before
    step: Callable[[KernelProblem, Limits, KernelState], Moved]
    repair: Callable[[Problem, jax.Array, jax.Array], jax.Array]  # f where rows vanish
    idle_steps: int | None  # without progress, after which a kernel is left; None: no
    progress: float  # share of the least error that counts as progress
    columns_fit: bool = True  # after every step; else the rows do
    translates: bool = True  # takes potentials to the best constant for the penalties


class LoopState(NamedTuple):
    """What is carried from kernel to kernel."""

    f: jax.Array  # [n] of which the next kernel is built
    g: jax.Array  # [m]
    last_f: jax.Array  # [n] at the end of the level before
    level: jax.Array  # [] int32 of the path in epsilon
    is_direct: jax.Array  # [] bool: an attempt at the last epsilon, without a path
    error: jax.Array  # [] of f and g at the last check; infinite before
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32
    memory: Any
    counts: Counts
    record: Recorder | None


def sweep_record(like: jax.Array) -> StepRecord:
    """Record of a step that was a Sinkhorn sweep."""
    return StepRecord(jnp.asarray(StepKind.SWEEP, jnp.int32), jnp.zeros_like(like))


def _in_range(x: jax.Array) -> jax.Array:
    """[] bool: whether a kernel has all the entries that count at x."""
    return jnp.max(jnp.abs(x)) <= largest_scaling(x.dtype)


def _going(method: Method, limits: Limits, s: KernelState) -> jax.Array:
    """[] bool: whether there is another step to be made on this kernel."""
    more = (s.iterate.error > limits.target) & (s.step < limits.max_steps)
    more &= _in_range(s.iterate.x)
    if method.idle_steps is not None:
        more &= s.idle < method.idle_steps
    return more & ~continuation.hopeless(limits, s)


def on_kernel(
    method: Method, problem: KernelProblem, limits: Limits, start: KernelState
) -> KernelState:
    """Step until the target is met, the kernel is used up, or nothing moves."""
    noise = NOISE * jnp.finfo(start.iterate.error.dtype).eps

    def step(s: KernelState) -> KernelState:
        new = method.step(problem, limits, s)
        # A step that is not finite is not made; it counts as one without progress.
        finite = jnp.isfinite(new.iterate.error)
        iterate = jax.tree.map(
            lambda u, v: jnp.where(finite, u, v), new.iterate, s.iterate
        )
        # Not of the last error: at the precision that falls by half by luck.
        rounded = problem.mass + problem.rows.rounding(iterate.x)
        rounded += problem.columns.rounding(iterate.y)
        better = (new.gain > noise * rounded) | (
            iterate.error < method.progress * s.least
        )
        noted = recorder.record_step(
            s.record,
            iterate.error,
            running=_going(method, limits, s),
            kind=new.record.kind,
            shift=new.record.shift,
            passes=new.counts.passes,
            products=new.counts.linear_steps + new.counts.sparse_steps,
        )
        return KernelState(
            iterate=iterate,
            memory=new.memory,
            contraction=iterate.error / s.iterate.error,
            first_error=s.first_error,
            least=jnp.minimum(s.least, iterate.error),
            idle=jnp.where(finite & better, 0, s.idle + 1),
            begun=s.begun,
            step=s.step + 1,
            counts=new.counts,
            record=noted,
        )

    return control.while_loop(lambda s: _going(method, limits, s), step, start)


def begin(
    iterate: Iterate,
    memory: Any,
    step: jax.Array,
    counts: Counts,
    record: Recorder | None = None,
) -> KernelState:
    """State before the first step on a kernel."""
    return KernelState(
        iterate=iterate,
        memory=memory,
        contraction=jnp.ones_like(iterate.error),
        first_error=iterate.error,
        least=iterate.error,
        idle=jnp.zeros_like(step),
        begun=step,
        step=step,
        counts=counts,
        record=record,
    )


def _unusable(problem: Problem, kernel: KernelProblem, first: Iterate) -> jax.Array:
    """[] bool: rows vanish on the kernel, or targets overflow: no step can be made.

    A row of which next to nothing is wanted may vanish.
    """
    wanted = kernel.rows.mass
    least = jnp.finfo(wanted.dtype).eps * kernel.mass / wanted.shape[0]
    vanished = jnp.any((first.rows <= 0) & (wanted > least))
    vanished |= ~jnp.isfinite(first.error)
    if problem.balanced:
        return vanished
    given = jnp.log(jnp.where(problem.a > 0, problem.a, 1))
    over = kernel.rows.real & (kernel.rows.log > given + OVERFLOW)
    return vanished | jnp.any(over)


def _repaired(record: Recorder | None, unusable: jax.Array, end: KernelState):
    """Record the sweep in the log domain that took the place of steps, if one did."""
    if record is None:
        return None
    noted = recorder.record_step(
        record, end.iterate.error, running=unusable, passes=end.counts.passes
    )
    return jax.tree.map(lambda u, v: jnp.where(unusable, u, v), noted, record)


def initial(problem: Problem, f: jax.Array | None, record: Recorder | None = None):
    """Start from row potentials f [n], or from zero."""
    f = jnp.zeros_like(problem.a) if f is None else f
    zero = jnp.asarray(0, jnp.int32)
    return LoopState(
        f=f,
        g=jnp.zeros_like(problem.b),
        last_f=f,
        level=zero,
        is_direct=jnp.asarray(True),
        error=jnp.asarray(jnp.inf, problem.dtype),
        step=zero,
        status=as_status(code(Status.RUNNING)),
        memory=None,
        counts=no_counts(),
        record=record,
    )


def solve(
    problem: Problem, options: Any, method: Method, path: Path, start: LoopState
) -> LoopState:
    """Build kernels and step on them until the status says why to stop."""
    tolerance = jnp.asarray(options.tolerance, problem.dtype)
    patience = jnp.asarray(getattr(options, "patience", 0.0), problem.dtype)

    def update(s: LoopState) -> LoopState:
        here = continuation.epsilon_at_level(path, s)
        last = continuation.is_last(path, s)
        mine = problem.with_epsilon(here)
        f = gauge.with_best_translation(mine, s.f, s.g) if method.translates else s.f
        kernel = stabilised.stabilise(mine, f)
        floor = dual.rounding_error(mine, kernel.f, kernel.top, options.rounding_share)
        wanted = jnp.maximum(tolerance, floor)
        wanted = jnp.where(last, wanted, continuation.loose(wanted))
        # Steps beyond are lost when potentials are rounded, whatever is asked for.
        hidden = dual.hidden_error(mine, kernel.f, kernel.top)
        limits = Limits(
            target=jnp.maximum(inner_tolerance(wanted), hidden),
            max_steps=options.max_steps,
            # Extrapolation needs levels better solved than sweeps would leave them.
            patience=jnp.where(last, patience, 0),
            may_give_up=s.is_direct & (path.levels > 0),
        )
        first = method.start(mine, kernel)
        unusable = _unusable(mine, kernel, first)
        record = recorder.at_epsilon(s.record, here, s.status)
        counts = s.counts.plus(passes=1)
        memory = method.memory(problem.dtype, s.memory)
        state = begin(first, memory, s.step, counts, record)
        # Steps of an unusable kernel would be made of nothing: none is made on it.
        stopped = limits._replace(max_steps=jnp.where(unusable, 0, limits.max_steps))
        end = on_kernel(method, kernel, stopped, state)
        # Steps may have been cut short on rows of which next to nothing is wanted, and
        # no error shows it: a sweep in the log domain makes them whole.
        cut = ~_in_range(end.iterate.x) & ~(end.iterate.error > limits.target)
        unusable |= cut
        f, g = kernel.potentials(end.iterate.x, end.iterate.y)
        f = control.cond(
            unusable,
            lambda: method.repair(mine, kernel.f, g),
            lambda: f,
        )
        repaired = jnp.where(unusable, 1, 0)
        end = end._replace(
            step=(end.step + repaired).astype(jnp.int32),
            counts=end.counts.plus(sweeps=repaired, passes=2 * repaired),
            record=_repaired(end.record, unusable, end),
        )
        work = limits, unusable, end, f, g
        return _ended(problem, options, method, path, s, work)

    return run(update, start._replace(memory=method.memory(problem.dtype, None)))


def checked(
    problem: Problem,
    options: Any,
    reached: tuple[jax.Array, jax.Array],
    before: jax.Array,
    settled: jax.Array,
    last: jax.Array | bool,
    step: jax.Array,
    refit: bool = False,
):
    """Check potentials (f, g) where steps ended: f [n], g [m], error, status, passes.

    Asked for at the last epsilon, where the steps ended by themselves (`settled`), at
    the limit, or at a number that is not finite. A kernel that was only used up goes
    on, RUNNING, with the error of the check `before`. refit: g is found anew from f.
    """
    f, g = reached
    finite = jnp.all(jnp.isfinite(f))
    asked = last & (settled | (step >= options.max_steps) | ~finite)
    f, g, error = control.cond(
        asked,
        lambda: dual.centred_with_error(
            problem, f, dual.refitted(problem, f, g) if refit else g
        ),
        lambda: (f, g, before),
    )
    share = options.rounding_share
    floor = dual.rounding_error(problem, f, g, share)
    tolerance = jnp.maximum(jnp.asarray(options.tolerance, problem.dtype), floor)
    stalled = settled & (error > 0.5 * before)
    status = status_at(error, tolerance, step, options.max_steps, stalled)
    if not problem.balanced:
        # Totals far apart under a huge rho: the dtype cannot hold the potentials to
        # epsilon, and the plan of their rounding overflows.
        overflown = finite & jnp.all(jnp.isfinite(reached[1])) & jnp.isinf(error)
        status = jnp.where(overflown, code(Status.STALLED), status)
    status = as_status(jnp.where(asked, status, code(Status.RUNNING)))
    passes = 2 if refit and not problem.balanced else 1
    return f, g, error, status, jnp.where(asked, passes, 0)


def _ended(
    problem: Problem, options: Any, method: Method, path: Path, s: LoopState, work
) -> LoopState:
    """What the steps on a kernel mean: go on, take another way, or check and stop."""
    limits, unusable, end, f, g = work
    last = continuation.is_last(path, s)
    # NaN counts as settled: such a kernel would be built for ever.
    settled = ~(end.iterate.error > limits.target)
    if method.idle_steps is not None:
        settled |= end.idle >= method.idle_steps
    settled &= ~unusable
    f, g, error, status, passes = checked(
        problem, options, (f, g), s.error, settled, last, end.step, method.columns_fit
    )
    give_up = limits.may_give_up & continuation.gives_up(limits, end, status)
    give_up &= ~unusable
    # A level of the path ends with its kernel; what its error is the next one shows.
    level_ended = ~s.is_direct & ~last & ~unusable
    ahead = continuation.extrapolated(path, s, f)
    next_f = jnp.where(level_ended, ahead, f)
    cold = jnp.where(problem.a > 0, 0, finite_minus_inf(problem.dtype))
    return LoopState(
        f=jnp.where(give_up, cold, next_f),
        g=g,
        last_f=jnp.where(level_ended, f, s.last_f),
        level=jnp.where(level_ended, s.level + 1, s.level),
        is_direct=s.is_direct & ~give_up,
        error=jnp.where(give_up, jnp.inf, error),
        step=end.step,
        status=as_status(jnp.where(give_up, code(Status.RUNNING), status)),
        memory=end.memory,
        counts=end.counts.plus(passes=passes),
        record=end.record,
    )
