"""Lanes under `vmap` that sweep together first; those that need more go on alone."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Dense
from jaxsns.linear import mapping
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.recording.counts import no_counts
from jaxsns.solvers.batched import joint_sinkhorn
from jaxsns.solvers.batched import vmap as batching
from jaxsns.solvers.batched.joint_sinkhorn import BatchMarginals, JointResult
from jaxsns.solvers.continuation import LEVEL_TOLERANCE
from jaxsns.solvers.options import NewtonOptions
from jaxsns.solvers.outcome import Outcome, input_status, mask_invalid
from jaxsns.status import Status, code

# [D17]
LARGEST = 1 << 16  # entries of a kernel, up to which it pays to sweep side by side
# [D17]
CHUNK = 1 << 18  # bytes of the kernels that do so at once: no more than a cache's worth


def solve(
    alone: Callable[..., Outcome],
    size: int,
    is_batched: Any,
    problem: Problem,
    options: Any,
    init: Any,
) -> Outcome | None:
    """Solve lanes, of which `is_batched` says what they have in common.

    None where that leads nowhere: the lanes are solved one by one then.
    """
    if not isinstance(options, NewtonOptions):
        return None
    n, m = problem.shape
    geometry = None
    if not any(jax.tree.leaves(is_batched[0].geometry)):
        geometry = problem.formed().geometry
        problem = dataclasses.replace(problem, geometry=None)
        is_batched = (
            dataclasses.replace(is_batched[0], geometry=None),
            *is_batched[1:],
        )
    elif n * m > LARGEST:
        return None
    lanes = batching.spread(size, is_batched, (problem, options, init))
    return batching.merging(functools.partial(_solve, alone))(geometry, lanes)


def _solve(alone: Callable[..., Outcome], geometry: Dense | None, lanes) -> Outcome:
    """Solve lanes, on the first axis of every leaf, that may have one geometry."""
    problem, limits, _ = lanes
    whole = lambda p: p
    if geometry is not None:
        whole = lambda p: dataclasses.replace(p, geometry=geometry)
    status_of_input = jax.vmap(lambda p, o: input_status(whole(p), o))(problem, limits)
    active = status_of_input == code(Status.RUNNING)
    # Problems sweep together or not at all: one that may not keeps the others from it.
    wanted = jnp.all(limits.patience > 0)
    if geometry is None:
        sweeps = functools.partial(
            control.platform_dependent, cpu=_on_own, default=_not_at_all
        )
    else:
        epsilon = jnp.max(jnp.where(active, problem.epsilon, 0))
        wanted &= jnp.all(jnp.where(active, problem.epsilon == epsilon, True))
        sweeps = functools.partial(_on_one, geometry)
    swept = control.cond(wanted, sweeps, _not_at_all, (*lanes, active))
    near = active & (swept.error <= LEVEL_TOLERANCE)
    ready = _checked(whole, lanes, status_of_input, swept, near)
    done = ~active | (ready.status == code(Status.CONVERGED))

    def one(solve, x):
        done, near, ready, (problem, options, init) = x

        def go_on():
            f, g = (jnp.zeros_like(x) for x in (problem.a, problem.b))
            f, g = (f, g) if init is None else init
            start = jnp.where(near, ready.f, f), jnp.where(near, ready.g, g)
            out = solve(whole(problem), options, start)
            return out._replace(counts=out.counts.plus(**ready.counts._asdict()))

        return control.cond(done, lambda: ready, go_on)

    left = mapping.each(
        functools.partial(one, batching.batched(alone, None)),
        functools.partial(one, alone),
    )
    every = (done, near, ready, lanes)
    return control.cond(jnp.all(done), lambda x: x[2], left, every)


def _checked(
    whole: Callable[[Problem], Problem],
    lanes: Any,
    status_of_input: jax.Array,
    swept: JointResult,
    near: jax.Array,
) -> Outcome:
    """Potentials that came near, with their errors by one pass each; RUNNING if not."""

    def one(x):
        (problem, options, _), given, swept, near = x
        problem = whole(problem)
        f, g, error = control.cond(
            near,
            lambda: dual.centred_with_error(problem.formed(), swept.f, swept.g),
            lambda: (swept.f, swept.g, swept.error),
        )
        floor = dual.rounding_error(problem, f, g, options.rounding_share)
        met = near & (error <= jnp.maximum(options.tolerance, floor))
        status = jnp.where(met, code(Status.CONVERGED), code(Status.RUNNING))
        counts = no_counts().plus(sweeps=swept.sweeps, passes=jnp.where(near, 2, 1))
        return mask_invalid(given, f, g, error, status, counts)

    return mapping.each(one)((lanes, status_of_input, swept, near))


def _marginals(lanes, active: jax.Array) -> tuple[BatchMarginals, jax.Array | None]:
    """Masses of the problems, and the row potentials to start from."""
    problem, limits, start = lanes
    dtype = problem.a.dtype
    pairs = BatchMarginals(
        a=problem.a,
        b=problem.b,
        tolerance=jnp.asarray(limits.tolerance, dtype),
        max_steps=jnp.asarray(limits.max_steps),
        rounding_share=jnp.asarray(limits.rounding_share, dtype),
        active=active,
    )
    return pairs, None if start is None else start[0]


def _on_one(geometry: Dense, work) -> JointResult:
    """Sweep problems, on first axes, on the kernel of one cost."""
    *lanes, active = work
    epsilon = jnp.max(jnp.where(active, lanes[0].epsilon, 0))
    epsilon = jnp.where(epsilon > 0, epsilon, 1)
    return joint_sinkhorn.on_one_kernel(geometry, epsilon, *_marginals(lanes, active))


def _on_own(work) -> JointResult:
    """Sweep problems, on first axes, side by side in chunks."""

    def chunk(work):
        *lanes, active = work
        problem = lanes[0].with_epsilon(jnp.where(active, lanes[0].epsilon, 1))
        return joint_sinkhorn.on_own_kernels(problem, *_marginals(lanes, active))

    (n, m), dtype = work[0].shape, work[0].dtype
    size = max(CHUNK // (n * m * dtype.itemsize), 2)
    return mapping.in_chunks(chunk, work, size)


def _not_at_all(work) -> JointResult:
    """No sweeps: on an accelerator problems run beside each other in any case."""
    problem, *_, active = work
    none = jnp.zeros_like(active, jnp.int32)
    error = jnp.full_like(problem.epsilon, jnp.inf)
    return JointResult(
        jnp.zeros_like(problem.a), jnp.zeros_like(problem.b), error, none
    )
