"""Newton's method from potentials to potentials, at one epsilon.

An update absorbs the potentials into a kernel, makes the steps of `newton_steps` on it
until the error is small enough or the kernel used up, and judges what came of it.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import goal
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.newton import direction, newton_loop
from jaxsns.solvers.newton import step as newton_steps
from jaxsns.solvers.newton.newton_options import NewtonOptions as NewtonOptions
from jaxsns.status import Status, code


class NewtonState(NamedTuple):
    """What the next update needs."""

    f: jax.Array  # [n] cost
    g: jax.Array  # [m] cost
    error: jax.Array  # [] of f and g at the last verdict
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32
    counts: Counts
    recorder: Recorder | None = None
    ratio: jax.Array | None = None  # [] of a path, if asked for; NaN before
    first: jax.Array | None = None  # [] error of the first kernel; NaN before


def init(problem: Problem, f: jax.Array | None = None) -> NewtonState:
    """Start from row potentials f [n], or from zero."""
    f = jnp.zeros_like(problem.a) if f is None else f
    return NewtonState(
        f=f,
        g=jnp.zeros_like(problem.b),
        error=jnp.asarray(jnp.inf, problem.dtype),
        step=jnp.asarray(0, jnp.int32),
        status=iteration.as_status(code(Status.RUNNING)),
        counts=iteration.no_counts(),
        ratio=jnp.asarray(jnp.nan, problem.dtype),
        first=jnp.asarray(jnp.nan, problem.dtype),
    )


def update(
    problem: Problem,
    options: NewtonOptions,
    state: NewtonState,
    last: ArrayLike = True,
    trying: ArrayLike = False,
    path: Callable[[jax.Array], jax.Array] | None = None,
) -> NewtonState:
    """Absorb, step on the kernel, and at the last epsilon judge what came of it.

    If only `trying`, the kernel is left after the first sweeps unless they come near or
    promise that the rest will be quick, and left when used up to little effect; unless
    `path`, of the error at the very beginning, says by a ratio of 0 that there is none.
    """
    dtype = problem.dtype
    tolerance = jnp.asarray(options.tolerance, dtype)
    f = dual.translated(problem, state.f, state.g)
    absorbed = dual.absorb(problem, f)
    moved = jnp.any((problem.a > 0) & (absorbed.f != f))
    solver = direction.permitted(options.linear_solver, absorbed.kernel)
    options = dataclasses.replace(options, linear_solver=solver)
    error = dual.row_error(absorbed)
    first = state.first
    if first is not None:
        first = jnp.where(jnp.isnan(first), error, first)
    known = error if first is None else first
    ask = None if path is None else lambda: path(known)
    setting = newton_steps.Setting(
        kernel=absorbed.kernel,
        rows=absorbed.row_target,
        columns=absorbed.column_target,
        gauge=has_gauge(problem),
        total=jnp.sum(absorbed.row_target.mass),
        target=goal(tolerance),
        trying=jnp.asarray(trying),
        path=ask,
        whole=(state.step == 0) & ~moved,
    )

    point = newton_steps.Point(
        jnp.zeros_like(problem.a), absorbed.y, absorbed.rows, error
    )
    record = recorder.at_epsilon(state.recorder, problem.epsilon, state.status)
    start = newton_steps.begin(
        options, point, state.step, state.counts.plus(passes=1), record, state.ratio
    )
    end = newton_loop.on_kernel(options, setting, start)
    f = absorbed.f + problem.epsilon * end.point.x
    g = problem.epsilon * end.point.y - absorbed.top
    # NaN is not left to itself: such an update would come back for ever.
    settled = ~(end.point.error > setting.target) | (end.idle >= newton_loop.IDLE)
    seen = absorbed, end.point.error
    f, g, judged, status, passes = iteration.judge(
        problem, f, g, state.error, settled, last, end.step, options, *seen
    )
    counts = end.counts.plus(passes=passes)
    record, ratio = end.recorder, end.ratio
    return NewtonState(f, g, judged, end.step, status, counts, record, ratio, first)


def run(problem: Problem, options: NewtonOptions, state: NewtonState) -> NewtonState:
    """Update until the status says why to stop."""
    return iteration.run(lambda s: update(problem, options, s), state)
