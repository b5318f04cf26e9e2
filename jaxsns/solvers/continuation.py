"""Continuation in epsilon: which epsilon is next, and whether it is needed at all.

It replaces a warm-up whose length would have to be tuned: from an epsilon of the order
of the costs' spread down to the wanted one, each level solved to a loose tolerance and
started from the levels before it. A plan to which three sweeps come near takes up to
twice as long along a path, so a direct attempt at the wanted epsilon is made first.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import largest_scaling
from jaxsns.problem.problem import Problem
from jaxsns.status import Status, code

LEVEL_FACTOR = 4.0  # by which epsilon falls from level to level, at most [D04]
LEVEL_TOLERANCE = 0.011  # relative L1 error, before the last level [D04]
FIRST_EPSILON = 0.03  # of the spread of the costs [D04]
MIN_RATIO = 12.0  # first epsilon over the wanted one: up to it a path costs more [D04]
TRIAL_SWEEPS = 3  # after which a direct attempt is judged [D05]
NEAR_ERROR = 0.7  # error that is near enough then [D05]
NEAR_SCALING = 0.35  # of the largest scaling of a kernel, that is near enough [D05]
FEW_SWEEPS = 45.0  # predicted by the last contraction: fast enough [D05]
# [D05]
FALLEN = 0.3  # of the error on a used-up kernel: a direct attempt goes on below it


class Path(NamedTuple):
    """Levels of epsilon from the first to the wanted one; 0 levels is no path."""

    epsilon: jax.Array  # [] wanted
    first: jax.Array  # [] of level 0
    levels: jax.Array  # [] int32 above the last one


def number_of_levels(ratio: jax.Array, least: float = MIN_RATIO) -> jax.Array:
    """Levels, int32, for the first epsilon over the wanted one, any shape."""
    count = jnp.ceil(jnp.log(jnp.maximum(ratio, 1)) / jnp.log(LEVEL_FACTOR))
    useful = (ratio > least) & jnp.isfinite(count)
    return jnp.where(useful, count, 0).astype(jnp.int32)


def plan(problem: Problem, enabled: bool) -> Path:
    """Path for a problem, by the spread of its costs; one pass without exponentials."""
    zero = jnp.asarray(0, jnp.int32)
    if not enabled:
        return Path(problem.epsilon, problem.epsilon, zero)
    spread = problem.geometry.spread(problem.a > 0, problem.b > 0)
    first = FIRST_EPSILON * spread
    return Path(problem.epsilon, first, number_of_levels(first / problem.epsilon))


def epsilon_at(
    wanted: jax.Array, first: jax.Array, count: jax.Array, level: jax.Array
) -> jax.Array:
    """Epsilon of a level: geometric from `first` at 0 to `wanted` at `count`.

    Elementwise: for one problem, [], or for the elements of a batch.
    """
    remaining = (count - level) / jnp.maximum(count, 1)
    power = jnp.maximum(first / wanted, 1) ** remaining.astype(wanted.dtype)
    return jnp.where(count > level, wanted * power, wanted)


def _at(path: Path, level: jax.Array) -> jax.Array:
    return epsilon_at(path.epsilon, path.first, path.levels, level)


def epsilon_at_level(path: Path, state: Any) -> jax.Array:
    """[] epsilon of the next kernel."""
    return jnp.where(state.is_direct, path.epsilon, _at(path, state.level))


def is_last(path: Path, state: Any) -> jax.Array:
    """[] bool: the next kernel is at the wanted epsilon."""
    return state.is_direct | (state.level >= path.levels)


def loose(tolerance: jax.Array) -> jax.Array:
    """[] tolerance of a level before the last."""
    return jnp.maximum(tolerance, LEVEL_TOLERANCE)


def slope(before: jax.Array, here: jax.Array, after: jax.Array) -> jax.Array:
    """[...] by how much of their last change potentials go on, linear in epsilon.

    With it MNIST W1 takes 28 Newton steps, without it 43 [D01].
    """
    return (after - here) / (here - before)


def extrapolated(path: Path, state: Any, f: jax.Array) -> jax.Array:
    """[n] potentials for the next level, from those of this one and the one before."""
    level = state.level
    ahead = slope(*(_at(path, level + k) for k in (-1, 0, 1)))
    return f + jnp.where(level > 0, ahead, 0) * (f - state.last_f)


def hopeless(limits: Any, s: Any) -> jax.Array:
    """[] bool: the first sweeps of a direct attempt neither came near nor are fast."""
    x = s.iterate.x
    near = s.iterate.error <= NEAR_ERROR
    near &= jnp.max(jnp.abs(x)) <= NEAR_SCALING * largest_scaling(x.dtype)
    needed = jnp.log(limits.target / s.iterate.error) / jnp.log(s.contraction)
    fast = (s.contraction < 1) & (needed <= FEW_SWEEPS)
    return limits.may_give_up & (s.step - s.begun == TRIAL_SWEEPS) & ~(near | fast)


def gives_up(limits: Any, s: Any, status: jax.Array) -> jax.Array:
    """[] bool: a direct attempt that ended on a kernel is followed by a path.

    Not where it ended as it was asked to, by its tolerance or its limit, nor where the
    kernel was used up to good effect: the next one goes on from there.
    """
    answered = (status == code(Status.CONVERGED)) | (status == code(Status.MAX_STEPS))
    fallen = s.least <= FALLEN * s.first_error
    used_up = (status == code(Status.RUNNING)) & fallen & ~hopeless(limits, s)
    return ~answered & ~used_up
