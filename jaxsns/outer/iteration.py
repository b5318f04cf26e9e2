"""The outer iteration: linearise, solve, repeat.

    C <- C + step (C(P) - C),   P = plan of the linear problem with cost C

C(P) is the gradient of the objective without its entropy. With step 1 this minimises a
bound of the objective where that part is concave on plans (Gromov-Wasserstein with
conditionally negative definite costs): the objective cannot rise. A
shorter step is one of mirror descent in the entropy of the plan, which lowers the
objective in any case if it is short enough; the step is halved where the objective
rose, and doubled again afterwards. Near the end steps are extrapolated (Anderson),
which is undone where the objective rose; the last step is a plain one.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsns.barycentres.free_support import IDLE
from jaxsns.geometry import memory
from jaxsns.linear import anderson
from jaxsns.linear.anderson import Window
from jaxsns.numerics import default_tolerance, machine_epsilon
from jaxsns.outer.form import Form, Terms
from jaxsns.problem.inputs import as_positive
from jaxsns.recording.counts import Counts, no_counts
from jaxsns.solver import solve
from jaxsns.solvers import loop
from jaxsns.status import Status, code

SHARE = 1e-3  # error of the marginals over the plan's last change [D41]
ROUNDING = 64  # units of rounding of the objective that are no rise [D41]
MAX_STEPS = 1_000  # linear problems [D41]
NEAR = 0.3  # change of the plan below which steps are extrapolated [D41]


class Options(NamedTuple):
    """Numbers of the iteration, all traced."""

    tolerance: jax.Array  # [] change of the plan in L1, relative to its mass
    inner_tolerance: jax.Array  # [] error of the marginals at the end
    max_steps: jax.Array  # [] int32
    share: jax.Array  # [] error of the marginals before the end, over the last change


class State(NamedTuple):
    """An accepted point of the iteration, and what to try next."""

    carried: Any  # of the linear problem
    next: Any  # what its plan would carry
    trial: Any  # what is tried next
    plain: jax.Array  # [] bool: that is a plain step, not an extrapolated one
    window: Window | None  # of the extrapolation
    plan: Any
    f: jax.Array
    g: jax.Array
    value: jax.Array
    error: jax.Array  # [] of the marginals
    change: jax.Array  # [] of the plan, for a step of 1
    step: jax.Array  # [] length of the next plain step
    least: jax.Array  # [] least change so far
    idle: jax.Array  # [] int32 steps since that or the objective fell
    steps: jax.Array  # [] int32 linear problems solved
    status: jax.Array
    inner: jax.Array  # [] int32 status of the linear problem
    counts: Counts  # work of all linear problems


def _mixed(old: Any, new: Any, step: jax.Array) -> Any:
    # At a step of 1 exactly the new one, without rounding.
    mix = lambda x, y: jnp.where(step >= 1, y, x + step * (y - x))
    return jax.tree.map(mix, old, new)


def _select(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), new, old)


def _proposed(s: State, form: Form, terms: Terms, plain: jax.Array) -> State:
    """Add what is tried next: a plain step if asked for, else an extrapolated one."""
    step = _mixed(s.carried, s.next, s.step)
    if s.window is None:
        return s._replace(trial=step, plain=jnp.asarray(True))
    flat, unravel = ravel_pytree(s.carried)
    change = ravel_pytree(s.next)[0] - flat
    weights = form.weights(terms, s.plan)
    window, mixed = anderson.mix(s.window, flat, change, weights, s.step)
    mixed = form.sensible(terms, unravel(mixed), s.next)
    fine = jnp.all(jnp.isfinite(ravel_pytree(mixed)[0]))
    plain |= ~fine
    # What was seen far from here, or on short steps, would only mislead.
    far = s.change > NEAR
    window = _select(far, anderson.cleared(s.window), window)
    return s._replace(
        trial=_select(plain | far, step, mixed), plain=plain | far, window=window
    )


def _judged(new: State, sure: jax.Array, inner: jax.Array, options: Options) -> State:
    """Add the status: of the outer iteration, or of an inner one that failed."""
    converged = (new.change <= options.tolerance) & sure
    converged &= new.error <= options.inner_tolerance
    status = jnp.where(
        new.steps >= options.max_steps, code(Status.MAX_STEPS), code(Status.RUNNING)
    )
    # A step that short moves the plan by less than the tolerance.
    short = new.step < options.tolerance
    stalled = short | (new.idle >= IDLE)
    status = jnp.where(stalled, code(Status.STALLED), status)
    status = jnp.where(converged, code(Status.CONVERGED), status)
    hopeful = (inner == code(Status.CONVERGED)) | (inner == code(Status.MAX_STEPS))
    hopeful |= inner == code(Status.STALLED)
    status = jnp.where(hopeful, status, inner)
    bad = ~jnp.isfinite(new.value) & hopeful
    status = jnp.where(bad, code(Status.NONFINITE), status)
    return new._replace(status=loop.as_status(status))


def run(
    form: Form,
    terms: Terms,
    start: Any,
    potentials: Any,
    options: Options,
    method: Any,
    given: Any,
) -> State:
    """Iterate from what is carried, and potentials to start from, to the end.

    given: [] int32 status of the input: RUNNING if it is fine.
    """
    dtype = terms.masses.dtype
    unit = machine_epsilon(dtype)

    def update(s: State) -> State:
        tolerance = options.share * jnp.minimum(s.change, 1)
        # Errors of the marginals can hide that steps go in circles.
        circling = s.idle >= IDLE // 2
        last = (s.change <= options.tolerance) | circling
        tolerance = jnp.where(last, 0, tolerance)
        tolerance = jnp.maximum(tolerance, options.inner_tolerance)
        out = solve(
            form.problem(terms, s.trial),
            tolerance=tolerance.astype(dtype),
            init=(s.f, s.g),
            method=method,
        )
        seen = form.evaluate(terms, s.trial, out.f, out.g)
        change = form.change(terms, s.plan, seen.plan) / s.step
        first = s.steps == 0
        slack = seen.size * (ROUNDING * unit + out.error + s.error)
        rose = seen.value > s.value + slack
        # An extrapolation that left where there is an answer is taken back as well.
        rose |= ~jnp.isfinite(seen.value) & ~s.plain
        ended = jnp.where(rose & ~s.plain, s.inner, out.status)
        gained = (seen.value < s.value - slack) | (~rose & (change < s.least))
        same = {
            "steps": s.steps + 1,
            "idle": jnp.where(first | gained, 0, s.idle + 1),
            "counts": jax.tree.map(jnp.add, s.counts, out.counts),
        }
        new = s._replace(
            carried=s.trial,
            next=seen.next,
            plan=seen.plan,
            f=out.f,
            g=out.g,
            value=seen.value,
            error=out.error,
            change=jnp.where(first, jnp.inf, change),
            step=jnp.minimum(2 * s.step, 1),
            least=jnp.where(first, jnp.inf, jnp.minimum(s.least, change)),
            inner=out.status,
            **same,
        )
        # An extrapolated step that failed is taken back; a plain one is shortened.
        shorter = jnp.where(s.plain, s.step / 2, s.step)
        back = s._replace(step=shorter, **same)
        if s.window is not None:
            back = back._replace(window=anderson.cleared(s.window))
        near = new.change <= options.tolerance
        wanted = rose | (near & ~s.plain) | circling
        sure = s.plain & ~rose
        accepted = _judged(_select(rose, back, new), sure, ended, options)
        return _proposed(accepted, form, terms, wanted)

    f, g = potentials
    infinite = jnp.asarray(jnp.inf, dtype)
    one, zero = jnp.ones((), dtype), jnp.asarray(0, jnp.int32)
    size = ravel_pytree(start)[0].shape[0]
    kept = memory.fits(2 * anderson.DEPTH, size, dtype)
    window = anderson.empty(size, dtype) if kept else None
    first = State(
        carried=start, next=start, trial=start, plain=jnp.asarray(True), window=window,
        plan=form.no_plan(terms, start), f=f, g=g,
        value=infinite, error=infinite, change=infinite, step=one,
        least=infinite, idle=zero, steps=zero,
        status=given, inner=given, counts=no_counts(),
    )  # fmt: skip
    return loop.run(update, first)


def as_options(
    dtype: jnp.dtype,
    tolerance: Any,
    inner_tolerance: Any,
    max_steps: Any,
    share: float = SHARE,
) -> Options:
    """Options of a dtype; None: what the dtype can do."""
    least = default_tolerance(dtype)
    # Change of the plan at which to stop: 1e-7 in float64, 1e-3 in float32.
    change = 1e-7 if least < 1e-6 else 1e-3
    default = lambda value, other: other if value is None else value
    return Options(
        as_positive("tolerance", default(tolerance, change), dtype),
        as_positive("inner_tolerance", default(inner_tolerance, least), dtype),
        as_positive("max_steps", default(max_steps, MAX_STEPS), jnp.int32),
        jnp.asarray(share, dtype),
    )


def answered(end: State) -> State:
    """What is returned of an end: NaN where there is no answer."""
    kept = (Status.CONVERGED, Status.MAX_STEPS, Status.STALLED)
    bad = ~functools.reduce(jnp.logical_or, [end.status == code(s) for s in kept])
    nothing = lambda tree: jax.tree.map(lambda v: jnp.where(bad, jnp.nan, v), tree)
    return end._replace(
        carried=nothing(end.carried), f=nothing(end.f), g=nothing(end.g),
        error=nothing(end.error), change=nothing(end.change),
        value=nothing(end.value),
    )  # fmt: skip
