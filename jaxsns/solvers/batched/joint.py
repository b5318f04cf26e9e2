"""Lanes under `vmap` that sweep together first; those that need more go on alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.linear import mapping
from jaxsns.problem.problem import Problem
from jaxsns.solvers import iteration
from jaxsns.solvers.batched import joint_sinkhorn, side_by_side
from jaxsns.solvers.batched import vmap as batching
from jaxsns.solvers.continuation import LEVEL_TOLERANCE
from jaxsns.solvers.newton.newton import NewtonOptions
from jaxsns.solvers.outcome import Outcome, finished, input_status
from jaxsns.solvers.registry import Options
from jaxsns.status import Status, code

LARGEST = 1 << 16  # entries of a kernel, up to which it pays to sweep side by side
CHUNK = 1 << 18  # bytes of the kernels that do so at once: no more than a cache's worth


def together(
    alone: Callable[..., Outcome],
    size: int,
    batched: Any,
    problem: Problem,
    options: Options,
    init: Any,
) -> Outcome | None:
    """Solve lanes, of which `batched` says what they have in common.

    None where that leads nowhere: the lanes are solved one by one then.
    """
    if not isinstance(options, NewtonOptions):
        return None
    n, m = problem.shape
    geometry = None
    if not any(jax.tree.leaves(batched[0].geometry)):
        geometry = problem.formed().geometry
        problem = dataclasses.replace(problem, geometry=None)
        batched = dataclasses.replace(batched[0], geometry=None), *batched[1:]
    elif n * m > LARGEST:
        return None
    lanes = batching.spread(size, batched, (problem, options, init))
    return batching.merging(functools.partial(_solve, alone))(geometry, lanes)


def _solve(alone: Callable[..., Outcome], geometry: Dense | None, lanes) -> Outcome:
    """Solve lanes, on the first axis of every leaf, that may have one geometry."""
    problem, limits, _ = lanes
    whole = lambda p: p
    if geometry is not None:
        whole = lambda p: dataclasses.replace(p, geometry=geometry)
    given = jax.vmap(lambda p, o: input_status(whole(p), o))(problem, limits)
    active = given == code(Status.RUNNING)
    # Lanes sweep together or not at all: one that may not keeps the others from it.
    wanted = jnp.all(limits.patience > 0)
    if geometry is None:
        sweeps = functools.partial(jax.lax.platform_dependent, cpu=_beside, default=_no)
    else:
        epsilon = jnp.max(jnp.where(active, problem.epsilon, 0))
        wanted &= jnp.all(jnp.where(active, problem.epsilon == epsilon, True))
        sweeps = functools.partial(_on_one, geometry)
    swept, passes = jax.lax.cond(wanted, sweeps, _no, (*lanes, active))
    done = ~active | (swept.sure & (swept.error <= limits.tolerance))
    near = swept.error <= LEVEL_TOLERANCE
    counts = jax.tree.map(lambda x: jnp.full_like(given, x), iteration.no_counts())
    counts = counts.plus(sweeps=swept.sweeps, passes=passes)
    status = jnp.full_like(given, code(Status.CONVERGED))
    ready = jax.vmap(finished)(given, swept.f, swept.g, swept.error, status, counts)

    def lane(solve, x):
        done, near, ready, (problem, options, init) = x

        def go_on():
            f, g = (jnp.zeros_like(x) for x in (problem.a, problem.b))
            f, g = (f, g) if init is None else init
            start = jnp.where(near, ready.f, f), jnp.where(near, ready.g, g)
            out = solve(whole(problem), options, (*start, near | (init is not None)))
            return out._replace(counts=out.counts.plus(**ready.counts._asdict()))

        return jax.lax.cond(done, lambda: ready, go_on)

    left = mapping.each(
        functools.partial(lane, batching.with_lanes(alone, None)),
        functools.partial(lane, alone),
    )
    every = (done, near, ready, lanes)
    return jax.lax.cond(jnp.all(done), lambda x: x[2], left, every)


def _pairs(lanes, active: jax.Array) -> tuple[joint_sinkhorn.Pairs, jax.Array | None]:
    """Masses of lanes, and the row potentials to start from."""
    problem, limits, start = lanes
    pairs = joint_sinkhorn.Pairs(
        a=problem.a,
        b=problem.b,
        tolerance=jnp.asarray(limits.tolerance),
        max_steps=jnp.asarray(limits.max_steps),
        active=active,
    )
    return pairs, None if start is None else start[0]


def _on_one(geometry: Dense, work) -> tuple[joint_sinkhorn.Swept, jax.Array]:
    """Sweep lanes, on first axes, on the kernel of one cost; and passes a lane."""
    *lanes, active = work
    epsilon = jnp.max(jnp.where(active, lanes[0].epsilon, 0))
    epsilon = jnp.where(epsilon > 0, epsilon, 1)
    swept = joint_sinkhorn.run(geometry, epsilon, *_pairs(lanes, active))
    return swept, jnp.ones_like(active, jnp.int32)


def _beside(work) -> tuple[joint_sinkhorn.Swept, jax.Array]:
    """Sweep lanes, on first axes, side by side in chunks; and passes a lane."""

    def chunk(work):
        *lanes, active = work
        problem = lanes[0].with_epsilon(jnp.where(active, lanes[0].epsilon, 1))
        return side_by_side.run(problem, *_pairs(lanes, active))

    (n, m), dtype = work[0].shape, work[0].dtype
    size = max(CHUNK // (n * m * dtype.itemsize), 2)
    return mapping.in_chunks(chunk, work, size), jnp.ones_like(work[-1], jnp.int32)


def _no(work) -> tuple[joint_sinkhorn.Swept, jax.Array]:
    """No sweeps: on an accelerator lanes run beside each other in any case."""
    problem, *_, active = work
    none = jnp.zeros_like(active, jnp.int32)
    error = jnp.full_like(problem.epsilon, jnp.inf)
    f, g = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    return joint_sinkhorn.Swept(f, g, error, jnp.zeros_like(active), none), none
