"""Tiny problems under `vmap`: solved in step, in chunks of lanes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.linear import mapping
from jaxsns.numerics import finite_minus_inf
from jaxsns.problem.problem import Problem
from jaxsns.recording.counts import Counts
from jaxsns.solvers.batched import lockstep, lockstep_problem
from jaxsns.solvers.loop import as_status
from jaxsns.solvers.options import NewtonOptions
from jaxsns.solvers.outcome import (
    Outcome,
    explain_failure,
    input_status,
    mask_invalid,
)
from jaxsns.status import Status, code

# [D17]
CHUNK = 1 << 16  # entries of the kernels of lanes that run in step: a cache's worth
# [D48]
WIDE_CHUNK = 1 << 26  # the same on an accelerator: what is in memory several times
FEW_CHUNKS = 8  # in which an accelerator goes on with the lanes that are left [D48]


def solve(path: bool, problem: Problem, options: Any, init) -> Outcome:
    """Solve tiny problems, lanes on the first axis of every leaf.

    First a few sweeps of all of them; those that are not done by then are gathered,
    so that few chunks wait for slow lanes.
    """
    n, m = problem.shape
    size = max(CHUNK // (n * m), 16)
    arguments = (problem, options, init)
    # Lanes are the last axis everywhere, so promotion of ranks is what is meant.
    with jax.numpy_rank_promotion("allow"):
        if not isinstance(options, NewtonOptions):
            whole = functools.partial(_chunk, False, lockstep.fixed_number)
            return _in_chunks(whole, arguments, size)
        pallas = getattr(problem.geometry, "pallas", False)
        sweeps = functools.partial(lockstep.fixed_sweeps, pallas=pallas)
        first = functools.partial(_chunk, path, sweeps)
        out = _in_chunks(first, arguments, size)
        rest = functools.partial(_chunk, path, lockstep.run)
        left = out.status == code(Status.RUNNING)
        out = _finished(rest, arguments, out, left, size)
    failed = jnp.any(out.status != code(Status.CONVERGED))
    explain = jax.vmap(explain_failure)
    status = control.cond(
        failed,
        lambda: explain(problem, out.f, out.g, out.status),
        lambda: out.status,
    )
    return out._replace(status=status)


def _finished(rest: Any, arguments: Any, out: Outcome, left, size: int) -> Outcome:
    """Let lanes that are left go on, in chunks: on an accelerator at most eight."""
    lanes = left.shape[0]
    if lanes <= size:
        return mapping.finish(rest, arguments, out, left, size)
    wide = max(size, -(-lanes // FEW_CHUNKS))
    return control.platform_dependent(
        (arguments, out, left),
        cpu=lambda x: mapping.finish(rest, x[0], x[1], x[2], size),
        default=lambda x: mapping.finish(rest, x[0], x[1], x[2], wide),
    )


def _in_chunks(function: Any, arguments: Any, size: int) -> Outcome:
    """Let lanes work, `size` at a time on a CPU, and many more on an accelerator.

    There a chunk costs the start of each of its operations, and there is no such cache.
    """
    if jax.tree.leaves(arguments)[0].shape[0] <= size:
        return function(arguments)
    wide = size * (WIDE_CHUNK // CHUNK)
    return control.platform_dependent(
        arguments,
        cpu=lambda x: mapping.in_chunks(function, x, size),
        default=lambda x: mapping.in_chunks(function, x, wide),
    )


def _chunk(path: bool, work, arguments, before: Outcome | None = None) -> Outcome:
    """Let lanes work, from what was reached before; RUNNING if there is more to do."""
    problem, options, init = arguments
    status_of_input = jax.vmap(input_status)(problem, options)
    fine = status_of_input == code(Status.RUNNING)
    cost = jax.vmap(lambda p: p.geometry.dense().entries)(problem)
    a, b = problem.a.T, problem.b.T
    cost = jnp.moveaxis(cost, 0, -1)
    newton = isinstance(options, NewtonOptions)
    transposed = cost.shape[0] > cost.shape[1]
    if not newton:
        transposed = options.exact == "columns"  # type: ignore[union-attr]
    if transposed:
        cost, a, b = jnp.swapaxes(cost, 0, 1), b, a
        init = None if init is None else init[::-1]
    f = jnp.zeros_like(a) if init is None else init[0].T
    f = jnp.where(a > 0, f, finite_minus_inf(f.dtype))
    epsilon = jnp.where(fine, problem.epsilon, 1)
    levels, first = lockstep_problem.path_of(cost, a, b, epsilon)
    number = lambda x: jnp.asarray(x, f.dtype)
    batch = lockstep_problem.Batch(
        cost=cost,
        a=a,
        b=b,
        epsilon=epsilon,
        tolerance=number(options.tolerance),
        max_steps=jnp.asarray(options.max_steps),
        patience=number(options.patience if newton else jnp.zeros_like(epsilon)),
        levels=levels if path else jnp.zeros_like(levels),
        first=first,
        rounding_share=number(options.rounding_share),
    )
    state = lockstep.begin(batch, f, as_status(status_of_input))
    if before is not None:
        reached = (before.g if transposed else before.f).T
        state = lockstep.resume(
            batch, state, reached, before.error, before.counts.sweeps
        )
    end = work(batch, state)
    f, g = (end.g, end.f) if transposed else (end.f, end.g)
    zero = jnp.zeros_like(end.sweeps)
    counts = Counts(end.sweeps, end.newton_steps, zero, zero, end.passes)
    out = mask_invalid(status_of_input, f, g, end.error, end.status, counts)
    return out._replace(f=out.f.T, g=out.g.T)
