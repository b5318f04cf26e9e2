"""Run a method on a checked problem: arrays in, potentials and a verdict out.

Nothing here is differentiated. Under `vmap` tiny problems run in step, with the
lanes as the fast axis; on a CPU others run one after another.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense, Streamed, TransposedCost
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Lane, RecordingOptions
from jaxsns.solvers import continuation, iteration
from jaxsns.solvers.batched import (
    in_step as together,
)
from jaxsns.solvers.batched import (
    joint as sweeping,
)
from jaxsns.solvers.batched import (
    vmap as batching,
)
from jaxsns.solvers.newton.newton import NewtonOptions
from jaxsns.solvers.outcome import Outcome, explained, finished, input_status
from jaxsns.solvers.registry import METHODS, Options
from jaxsns.solvers.streamed import driver
from jaxsns.status import Status, code

LARGEST_IN_STEP = 32  # rows and columns of problems that run in step under vmap


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def execute(
    method: str,
    path: bool,
    watch: RecordingOptions | None,
    problem: Problem,
    options: Options,
    init: tuple[jax.Array, jax.Array] | None,
) -> Outcome:
    """Solve with a method of `METHODS`, along a path in epsilon if `path`.

    Lanes that somebody watches are solved each by itself.
    """
    if watch is not None:
        one = functools.partial(_alone, method, path, watch)
        lane = Lane(jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32))
        return batching.with_lanes(one, None, numbered=True)(
            problem, options, init, lane
        )
    n, m = problem.shape
    in_step = None
    plain = method == "fixed"
    if isinstance(options, NewtonOptions):
        plain = options.linear_solver == "auto"
    plain &= problem.balanced and isinstance(problem.geometry.formed(), Dense)
    if max(n, m) <= LARGEST_IN_STEP and plain:
        in_step = functools.partial(together.in_step, path)
    alone = functools.partial(_alone, method, path, None)
    swept = functools.partial(sweeping.together, alone) if plain else None
    return batching.with_lanes(alone, in_step, swept)(problem, options, init)


def _alone(
    method: str,
    path: bool,
    watch: RecordingOptions | None,
    problem: Problem,
    options: Options,
    init: tuple[jax.Array, ...] | None,
    lane: Lane | None = None,
) -> Outcome:
    _, start, level, _ = METHODS[method]
    given = input_status(problem, options)
    # A bad epsilon or mass is not worth an iteration, and must not loop for ever.
    fine = given == code(Status.RUNNING)
    problem = problem.formed()
    problem = problem.with_epsilon(jnp.where(fine, problem.epsilon, 1))
    n, m = problem.shape
    swapped = n > m or isinstance(problem.geometry, TransposedCost)
    # Lanes that swept together before say themselves whether that led anywhere.
    f, g, *known = init or (None, None, False)
    warm = known[0] if known else True
    f = g if swapped else f
    if swapped:
        problem = problem.transposed()
    options = dataclasses.replace(
        options, max_steps=jnp.where(fine, options.max_steps, 0)
    )
    record = recorder.begin(watch, problem.dtype, options.tolerance, lane)
    if isinstance(problem.geometry, Streamed):
        end = driver.run(method, problem, options, f, record)
        f, g = (end.g, end.f) if swapped else (end.f, end.g)
        return _finished(given, f, g, end, end.status)
    state = start(problem, f)._replace(recorder=record)
    if path:
        ratio = functools.partial(continuation.path_ratio, problem)
        end = continuation.run(problem, options, state, level, ratio, warm)
    else:
        end = iteration.run(lambda s: level(problem, options, s), state)
    status = explained(problem, end.f, end.g, end.status)
    f, g = (end.g, end.f) if swapped else (end.f, end.g)
    return _finished(given, f, g, end, status)


def _finished(given, f: jax.Array, g: jax.Array, end: Any, status) -> Outcome:
    out = finished(given, f, g, end.error, status, end.counts, end.recorder)
    recorder.ended(out.recorder, out.error, out.status, out.counts.passes)
    return out
