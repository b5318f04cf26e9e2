"""Run a method on a checked problem: arrays in, potentials and a verdict out.

Nothing here is differentiated. Under `vmap` tiny problems run in step, with the
lanes as the fast axis; on a CPU others run one after another.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import batching, dual
from jaxsns.checks import validity
from jaxsns.feasibility import infeasible
from jaxsns.methods import METHODS, Options
from jaxsns.numerics import far_below
from jaxsns.problem import Problem
from jaxsns.solvers import continuation, iteration, lane_problems, lockstep, shared
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.newton import NewtonOptions
from jaxsns.status import Status, code

WARM_ERROR = 0.5  # an initial potential with a larger marginal error is not trusted
LARGEST_IN_STEP = 32  # rows and columns of problems that run in step under vmap
CHUNK = 1 << 16  # entries of the kernels of lanes that run in step: a cache's worth


class Outcome(NamedTuple):
    """What an iteration leaves behind."""

    f: jax.Array  # [n]
    g: jax.Array  # [m]
    error: jax.Array  # []
    status: jax.Array  # [] int32
    counts: Counts


@functools.partial(jax.jit, static_argnums=(0, 1))
def execute(
    method: str,
    path: bool,
    problem: Problem,
    options: Options,
    init: tuple[jax.Array, jax.Array] | None,
) -> Outcome:
    """Solve with a method of `METHODS`, along a path in epsilon if `path`."""
    n, m = problem.shape
    together = None
    plain = method == "fixed"
    if isinstance(options, NewtonOptions):
        plain = options.linear_solver == "auto"
    plain &= problem.balanced
    if max(n, m) <= LARGEST_IN_STEP and plain:
        together = functools.partial(_in_step, path)
    alone = functools.partial(_alone, method, path)
    sharing = functools.partial(_sharing, alone) if plain else None
    return batching.with_lanes(alone, together, sharing)(problem, options, init)


def _validity(problem: Problem, options: Options) -> jax.Array:
    valid = validity(problem)
    invalid = iteration.as_status(code(Status.INVALID_INPUT))
    return jnp.where(options.tolerance > 0, valid, invalid)


def _alone(method: str, path: bool, problem: Problem, options: Options, init):
    _, start, level, _ = METHODS[method]
    valid = _validity(problem, options)
    # A bad epsilon or mass is not worth an iteration, and must not loop for ever.
    fine = valid == code(Status.RUNNING)
    problem = problem.dense()
    problem = problem.with_epsilon(jnp.where(fine, problem.epsilon, 1))
    n, m = problem.shape
    swapped = n > m
    if swapped:
        problem = problem.transposed()
        init = None if init is None else init[::-1]
    state = start(problem, None if init is None else init[0])
    options = dataclasses.replace(
        options, max_steps=jnp.where(fine, options.max_steps, 0)
    )
    count = jnp.asarray(0, jnp.int32)
    if path:
        count = continuation.levels(problem)
        if init is not None:
            error = dual.row_error(dual.absorb(problem, state.f))
            count = jnp.where(error < WARM_ERROR, 0, count)
    end = continuation.run(problem, options, state, level, count)
    status = _explained(problem, end.f, end.g, end.status)
    f, g = (end.g, end.f) if swapped else (end.f, end.g)
    return _outcome(valid, f, g, end.error, status, end.counts)


def _explained(problem: Problem, f, g, status) -> jax.Array:
    """[] the status, or INFEASIBLE where that can be proved of a failed solve."""
    failed = (status == code(Status.MAX_STEPS)) | (status == code(Status.STALLED))
    proved = jax.lax.cond(
        failed,
        lambda: infeasible(problem, f, g),
        lambda: jnp.asarray(False),
    )
    return jnp.where(proved, code(Status.INFEASIBLE), status)


def _outcome(valid, f, g, error, status, counts) -> Outcome:
    """NaN where there is no answer; [] or, with f and g lanes last, [lanes]."""
    fine = valid == code(Status.RUNNING)
    status = jnp.where(fine, status, valid).astype(jnp.int32)
    bad = ~fine | (status == code(Status.NONFINITE))
    f, g = jnp.where(bad, jnp.nan, f), jnp.where(bad, jnp.nan, g)
    return Outcome(f, g, jnp.where(fine, error, jnp.nan), status, counts)


def _sharing(alone, size: int, batched, problem: Problem, options: Options, init):
    """Lanes with one cost sweep together; those that need more go on alone."""
    if any(jax.tree.leaves(batched[0].geometry)):
        return None
    if not isinstance(options, NewtonOptions):
        return None
    geometry = problem.dense().geometry
    problem = dataclasses.replace(problem, geometry=None)
    flags = dataclasses.replace(batched[0], geometry=None), *batched[1:]
    lanes = batching.spread(size, flags, (problem, options, init))
    whole = lambda p: dataclasses.replace(p, geometry=geometry)
    valid = jax.vmap(lambda p, o: _validity(whole(p), o))(*lanes[:2])
    masses, limits, start = lanes
    active = valid == code(Status.RUNNING)
    epsilon = jnp.max(jnp.where(active, masses.epsilon, 0))
    same = jnp.all(jnp.where(active, masses.epsilon == epsilon, True))
    wanted = same & (epsilon > 0) & jnp.all(limits.patience > 0)
    pairs = shared.Pairs(
        a=masses.a.T,
        b=masses.b.T,
        tolerance=limits.tolerance,
        max_steps=limits.max_steps,
        active=active & wanted,
    )
    f = None if start is None else start[0].T
    with jax.numpy_rank_promotion("allow"):
        swept = shared.run(geometry, jnp.where(wanted, epsilon, 1), pairs, f)
    # Others may have needed more sweeps than a lane may make: it does its own then.
    mine = wanted & (swept.sweeps <= limits.max_steps)
    done = ~active | (mine & (swept.error <= limits.tolerance))
    counts = jax.tree.map(lambda x: jnp.full((size,), x), iteration.no_counts())
    counts = counts.plus(sweeps=jnp.where(mine, swept.sweeps, 0), passes=1)
    status = jnp.full((size,), code(Status.CONVERGED))
    ready = jax.vmap(_outcome)(valid, swept.f.T, swept.g.T, swept.error, status, counts)

    def lane(solve, x):
        done, mine, ready, (problem, options, init) = x

        def go_on():
            near = mine & (ready.error <= continuation.LEVEL_TOLERANCE)
            f, g = (jnp.zeros_like(x) for x in (problem.a, problem.b))
            f, g = (f, g) if init is None else init
            start = jnp.where(near, ready.f, f), jnp.where(near, ready.g, g)
            out = solve(whole(problem), options, start)
            return out._replace(
                counts=out.counts.plus(**ready.counts._asdict()),
            )

        return jax.lax.cond(done, lambda: ready, go_on)

    every = (done, mine, ready, lanes)
    left = batching.each(
        functools.partial(lane, batching.with_lanes(alone, None)),
        functools.partial(lane, alone),
    )
    return jax.lax.cond(jnp.all(done), lambda x: x[2], left, every)


def _in_step(path: bool, problem: Problem, options: Options, init) -> Outcome:
    """Tiny problems, lanes on the first axis of every leaf.

    First a few sweeps of all of them; those that are not done by then are gathered,
    so that few chunks wait for slow lanes.
    """
    n, m = problem.shape
    size = max(CHUNK // (n * m), 16)
    arguments = (problem, options, init)
    # Lanes are the last axis everywhere, so promotion of ranks is what is meant.
    with jax.numpy_rank_promotion("allow"):
        if not isinstance(options, NewtonOptions):
            whole = functools.partial(_chunk, path, lockstep.run)
            return batching.in_chunks(whole, arguments, size)
        first = functools.partial(_chunk, path, lockstep.blind)
        out = batching.in_chunks(first, arguments, size)
        rest = functools.partial(_chunk, path, lockstep.run)
        left = out.status == code(Status.RUNNING)
        out = batching.finish(rest, arguments, out, left, size)
    failed = jnp.any(out.status != code(Status.CONVERGED))
    explain = jax.vmap(_explained)
    status = jax.lax.cond(
        failed,
        lambda: explain(problem, out.f, out.g, out.status),
        lambda: out.status,
    )
    return out._replace(status=status)


def _chunk(path: bool, work, arguments, before: Outcome | None = None) -> Outcome:
    """Let lanes work, from what was reached before; RUNNING if there is more to do."""
    problem, options, init = arguments
    valid = jax.vmap(_validity)(problem, options)
    fine = valid == code(Status.RUNNING)
    cost = jax.vmap(lambda p: p.dense().geometry.cost)(problem)
    a, b = problem.a.T, problem.b.T
    cost = jnp.moveaxis(cost, 0, -1)
    swapped = cost.shape[0] > cost.shape[1]
    if swapped:
        cost, a, b = jnp.swapaxes(cost, 0, 1), b, a
        init = None if init is None else init[::-1]
    f = jnp.zeros_like(a) if init is None else init[0].T
    f = jnp.where(a > 0, f, far_below(f.dtype))
    epsilon = jnp.where(fine, problem.epsilon, 1)
    levels, first = lane_problems.path_of(cost, a, b, epsilon)
    # A fixed number of sweeps: an error to reach of 0, and never a Newton step.
    patience, aim = jnp.full_like(epsilon, jnp.inf), jnp.zeros_like(epsilon)
    if isinstance(options, NewtonOptions):
        patience = jnp.where(options.patience > 0, lockstep.PATIENCE, 0)
        aim = jnp.asarray(options.tolerance)
    batch = lane_problems.Batch(
        cost=cost,
        a=a,
        b=b,
        epsilon=epsilon,
        tolerance=aim,
        max_steps=jnp.asarray(options.max_steps),
        patience=patience.astype(f.dtype),
        levels=levels if path else jnp.zeros_like(levels),
        first=first,
    )
    state = lockstep.begin(batch, f, iteration.as_status(valid))
    if before is not None:
        reached = (before.g if swapped else before.f).T
        state = lockstep.resume(
            batch, state, reached, before.error, before.counts.sweeps
        )
    end = work(batch, state)
    f, g = (end.g, end.f) if swapped else (end.f, end.g)
    status = end.status
    if not isinstance(options, NewtonOptions):
        stopped = (status == code(Status.MAX_STEPS)) | (status == code(Status.STALLED))
        close = stopped & (end.error <= options.tolerance)
        status = jnp.where(close, code(Status.CONVERGED), status)
    zero = jnp.zeros_like(end.sweeps)
    counts = Counts(end.sweeps, end.newton_steps, zero, zero, end.passes)
    out = _outcome(valid, f, g, end.error, status, counts)
    return out._replace(f=out.f.T, g=out.g.T)
