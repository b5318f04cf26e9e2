"""Path-following in epsilon around any iteration that absorbs potentials.

It replaces a warm-up whose length would have to be tuned: from an epsilon of the
order of the costs' spread down to the wanted one, each level solved to a loose
tolerance and started from the levels before it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry import Grid, column_maxima, grid_statistics
from jaxsns.numerics import is_forbidden, permitted_costs
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import as_status, is_answer
from jaxsns.solvers.newton.newton import NewtonOptions
from jaxsns.status import Status, code

FACTOR = 4.0  # by which epsilon falls from level to level, at most
LEVEL_TOLERANCE = 0.011  # relative L1 error, before the last level
FIRST_EPSILON = 0.03  # of the spread of the costs
WARM_ERROR = 0.5  # an initial potential with a larger marginal error is not trusted
DIRECT = 12.0  # times FIRST_EPSILON's epsilon over ours: up to it a path costs more

S = TypeVar("S", bound=Any)
Update = Callable[..., S]  # of problem, options, state and whether it is the last level


class PathState(NamedTuple):
    """State of the method inside, and where on the path it stands."""

    inner: Any
    level: jax.Array  # [] int32
    last_f: jax.Array  # [n] row potentials at the end of the level before
    status: jax.Array  # [] int32
    ratio: jax.Array  # [] of the path, see `path_ratio`; NaN while it is not known


def spread(problem: Problem) -> jax.Array:
    """[] largest minus smallest cost of permitted pairs of atoms with mass."""
    if isinstance(problem.geometry, Grid):
        return grid_statistics.spread(problem.geometry, problem.a > 0, problem.b > 0)

    def both(cost: jax.Array, a: jax.Array):
        cost = permitted_costs(cost)
        counts = (a > 0)[:, None] & ~is_forbidden(cost)
        return tuple(jnp.where(counts, x, -jnp.inf) for x in (cost, -cost))

    most = column_maxima.maxima(both, problem.geometry.dense().cost, problem.a)
    high, minus_low = (jnp.max(jnp.where(problem.b > 0, x, -jnp.inf)) for x in most)
    return high + minus_low


def path_ratio(problem: Problem) -> jax.Array:
    """[] first epsilon of the path over the wanted one; 0 if that is not small."""
    ratio = FIRST_EPSILON * spread(problem) / problem.epsilon
    return jnp.where(number_of_levels(ratio) > 0, ratio, 0)


def levels(problem: Problem) -> jax.Array:
    """[] int32 levels above the last one; 0 if epsilon is not small."""
    return number_of_levels(path_ratio(problem))


def number_of_levels(ratio: jax.Array, direct: float = DIRECT) -> jax.Array:
    """Levels, int32, for the first epsilon over the wanted one, any shape."""
    count = jnp.ceil(jnp.log(jnp.maximum(ratio, 1)) / jnp.log(FACTOR))
    useful = (ratio > direct) & jnp.isfinite(count)
    return jnp.where(useful, count, 0).astype(jnp.int32)


def epsilon_at(
    wanted: jax.Array, first: jax.Array, count: jax.Array, level: jax.Array
) -> jax.Array:
    """Epsilon of a level: geometric from `first` at 0 to `wanted` at `count`.

    Elementwise: for one problem, [], or for lanes.
    """
    remaining = (count - level) / jnp.maximum(count, 1)
    power = jnp.maximum(first / wanted, 1) ** remaining.astype(wanted.dtype)
    return jnp.where(count > level, wanted * power, wanted)


@jax.named_scope("path")
def run(
    problem: Problem,
    options: Any,
    state: S,
    update: Update,
    ratio: Callable[[], jax.Array],
    given: ArrayLike = False,
) -> S:
    """Follow the path that `ratio` tells, then run at the wanted epsilon.

    given: [] bool, `state` begins at potentials that somebody gave; if they are good
    there is no path.

    Potentials are extrapolated linearly in epsilon between levels: with it MNIST W1
    takes 28 Newton steps, without it 43, 2-D points 5 and 13 (docs/decisions.md).
    Newton's method first tries without a path (`newton.update`), at level -1: a plan
    to which three sweeps come near takes up to twice as long along one, and the spread
    of the costs, on which the path depends, a third of a solve that needs one pass.
    """
    wanted = jnp.asarray(options.tolerance, problem.dtype)
    tries = isinstance(options, NewtonOptions)

    def from_error(error: jax.Array) -> jax.Array:
        if given is False:
            return ratio()
        none = lambda: jnp.zeros_like(error)
        return jax.lax.cond((error < WARM_ERROR) & given, none, ratio)

    def advance(s: PathState) -> PathState:
        trying = s.level < 0
        count = number_of_levels(s.ratio)
        first = s.ratio * problem.epsilon
        here = epsilon_at(problem.epsilon, first, count, s.level)
        here = jnp.where(trying, problem.epsilon, here)
        last = (s.level >= count) | trying
        tolerance = jnp.where(last, wanted, jnp.maximum(wanted, LEVEL_TOLERANCE))
        mine = dataclasses.replace(options, tolerance=tolerance)
        if isinstance(options, NewtonOptions):
            # Extrapolation needs levels better solved than sweeps would leave them.
            patience = jnp.asarray(options.patience, problem.dtype)
            mine = dataclasses.replace(mine, patience=jnp.where(last, patience, 0))
        problem_here = problem.with_epsilon(here)
        if tries:
            inner = update(problem_here, mine, s.inner, last, trying, from_error)
        else:
            inner = update(problem_here, mine, s.inner, last)
        before = epsilon_at(problem.epsilon, first, count, s.level - 1)
        after = epsilon_at(problem.epsilon, first, count, s.level + 1)
        slope = jnp.where(s.level > 0, (after - here) / (here - before), 0)
        ahead = inner.f + slope * (inner.f - s.last_f)
        running = as_status(code(Status.RUNNING))
        status = jnp.where(last, inner.status, running)
        onward = inner._replace(f=jnp.where(last, inner.f, ahead), status=status)
        found = s.ratio
        if tries:
            found = jnp.where(trying, inner.ratio, s.ratio)
            # Where there is no path the trial was the first update like any other.
            again = trying & ~is_answer(status) & (found > 0)
            status = jnp.where(again, running, status)
            afresh = state._replace(counts=inner.counts, step=inner.step)
            afresh = afresh._replace(recorder=inner.recorder)
            onward = jax.tree.map(lambda x, y: jnp.where(again, x, y), afresh, onward)
            # A kernel that was used up to some effect: the next one is a trial too,
            # but not after a verdict, which is near the end.
            more = trying & jnp.isnan(found) & jnp.isinf(inner.error)
            next_level = jnp.where(more, s.level, s.level + 1)
        else:
            next_level = s.level + 1
        return PathState(onward, next_level, inner.f, status, found)

    if tries:
        level, known = -1, jnp.asarray(jnp.nan, problem.dtype)
    else:
        level = 0
        cold = given is False
        warm = 1.0 if cold else dual.row_error(dual.absorb(problem, state.f))
        known = from_error(jnp.asarray(warm, problem.dtype))
    level = jnp.asarray(level, jnp.int32)
    start = PathState(state, level, state.f, as_status(code(Status.RUNNING)), known)
    return iteration.run(advance, start).inner
