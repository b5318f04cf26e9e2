"""Run a method on a checked problem: arrays in, potentials and a status out.

Nothing here is differentiated. Under `vmap` tiny problems run in step, with the batch
as the fast axis; on a CPU others run one after another.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.recorder import Lane, RecordingOptions
from jaxsns.solvers import continuation, kernel_loop, sns
from jaxsns.solvers.batched import in_step, joint, vmap
from jaxsns.solvers.options import NewtonOptions, SinkhornOptions
from jaxsns.solvers.outcome import (
    Outcome,
    explain_failure,
    input_status,
    mask_invalid,
)
from jaxsns.solvers.registry import METHODS
from jaxsns.solvers.streamed import driver
from jaxsns.status import Status, code

LARGEST_IN_STEP = 32  # rows and columns of problems that run in step under vmap [D17]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def execute(
    method: str,
    path: bool,
    recording: RecordingOptions | None,
    problem: Problem,
    options: Any,
    init: tuple[jax.Array, jax.Array] | None,
) -> Outcome:
    """Solve with a method of `METHODS`, along a path in epsilon if `path`.

    With a record, every problem of a batch is solved by itself.
    """
    if recording is not None:
        one = functools.partial(_alone, method, path, recording)
        lane = Lane(jnp.asarray(0, jnp.int32), jnp.asarray(1, jnp.int32))
        return vmap.batched(one, None, numbered=True)(problem, options, init, lane)
    n, m = problem.shape
    plain = method == "fixed"
    if isinstance(options, NewtonOptions):
        plain = options.linear_solver == "auto"
    plain &= problem.balanced and problem.geometry.stored
    lockstep = None
    if max(n, m) <= LARGEST_IN_STEP and plain:
        lockstep = functools.partial(in_step.solve, path)
    alone = functools.partial(_alone, method, path, None)
    together = functools.partial(joint.solve, alone) if plain else None
    return vmap.batched(alone, lockstep, together)(problem, options, init)


def _orientation(
    method: str, options: Any, problem: Problem
) -> tuple[bool, bool, bool]:
    """Whether a problem is solved transposed, starts from f, and ends with columns.

    The smaller side are the rows, whose scalings are the unknowns; after a fixed number
    of sweeps they are the side that ends exact. Rows that are divided among devices are
    columns always. All of it is known when compiled.
    """
    n, m = problem.shape
    divided = problem.geometry.streams_rows
    if method != "fixed":
        transposed = n > m or divided
        return transposed, not transposed, False
    assert isinstance(options, SinkhornOptions)
    from_g = options.exact == "columns"
    transposed = from_g or divided
    return transposed, not from_g, divided and not from_g


def _alone(
    method: str,
    path: bool,
    recording: RecordingOptions | None,
    problem: Problem,
    options: Any,
    init: tuple[jax.Array, jax.Array] | None,
    lane: Lane | None = None,
) -> Outcome:
    status_of_input = input_status(problem, options)
    # A bad epsilon or mass is not worth an iteration, and must not loop for ever.
    fine = status_of_input == code(Status.RUNNING)
    problem = problem.formed()
    problem = problem.with_epsilon(jnp.where(fine, problem.epsilon, 1))
    transposed, from_f, columns_last = _orientation(method, options, problem)
    f = None if init is None else init[0 if from_f else 1]
    if transposed:
        problem = problem.transposed()
    limit = jnp.where(fine, jnp.asarray(options.max_steps), 0)
    options = dataclasses.replace(options, max_steps=limit)
    record = recorder.begin(recording, problem.dtype, options.tolerance, lane)
    on_kernel = METHODS[method].on_kernel
    if not problem.geometry.has_kernel:
        end = driver.run(method, problem, options, f, record, columns_last)
        status = end.status
    elif on_kernel is None:
        end = sns.run(problem, options, sns.init(problem, f)._replace(record=record))
        status = explain_failure(problem, end.f, end.g, end.status)
    else:
        steps = on_kernel(options)
        levels = continuation.plan(problem, path)
        start = kernel_loop.initial(problem, f, record)
        end = kernel_loop.solve(problem, options, steps, levels, start)
        status = explain_failure(problem, end.f, end.g, end.status)
    f, g = (end.g, end.f) if transposed else (end.f, end.g)
    out = mask_invalid(status_of_input, f, g, end.error, status, end.counts, end.record)
    if out.record is not None:
        floor = dual.rounding_error(problem, end.f, end.g, options.rounding_share)
        judged = jnp.maximum(out.record.tolerance, floor)
        last = dataclasses.replace(out.record, tolerance=judged)
        recorder.ended(last, out.error, out.status, out.counts.passes)
    return out
