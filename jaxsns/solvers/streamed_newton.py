"""Newton's method where the plan is never stored: one pass over the costs a step.

A pass at row potentials f makes the columns exact and gives the row sums and the mass
from cluster to cluster. Of these and of the largest entries `near_kernel` makes a model
of the plan in O((n + m) k) numbers, with the same marginals, on which the whole Newton
method of `newton` runs; its solution is the next f. The model's error is what a step
leaves over: it falls 4 to 10 times a pass on problems where Sinkhorn takes hundreds.
Steps are combined by Anderson's method, which needs no pass of its own.

What is measured decides: lists of largest entries are looked for only where the
clusters alone do not do, and again where old ones have lost their hold.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import dual, marginal, near_kernel
from jaxsns.clusters import Layout
from jaxsns.geometry import Streamed, sharding
from jaxsns.linear import anderson
from jaxsns.linear.anderson import History
from jaxsns.look import Look, look
from jaxsns.near_kernel import KEPT, Pattern
from jaxsns.numerics import far_below, goal, unit_roundoff
from jaxsns.problem import Problem, hard
from jaxsns.solvers import iteration, newton
from jaxsns.solvers.continuation import epsilon_at
from jaxsns.solvers.iteration import Counts
from jaxsns.status import Status, code

LEVEL_TOLERANCE = 0.05  # relative L1 error before the last level
SLOW = 0.4  # of the error left by a step: more, and largest entries are looked for
SHARE = 0.05  # of the error, to which the model is solved
MODEL_STEPS = 40  # of Newton's method on one model, at most
MODEL_ROUNDS = 6  # times the model is moved to where the steps have come
SHORTER = 0.25  # of a step that made things worse
PATIENCE = 6  # passes without a new least error before rounding is believed in
LOST = 3e-4  # of the mass a row should have: less, and it is corrected by itself
SEARCH = 2  # passes that a search for largest entries counts as


class State(NamedTuple):
    """What the next pass needs."""

    f: jax.Array  # [n] where to look next
    base: jax.Array  # [n] the last f that was accepted
    base_error: jax.Array  # []
    base_value: jax.Array  # []
    least: jax.Array  # [] error at this epsilon
    idle: jax.Array  # [] int32 passes since then
    shorter: jax.Array  # [] int32 times the step was shortened
    repaired: jax.Array  # [] bool: the last pass went into rows that were lost
    history: History
    pattern: Pattern
    age: jax.Array  # [] int32 steps since the pattern was found
    level: jax.Array  # [] int32
    level_f: jax.Array  # [n] at the end of the level before
    g: jax.Array  # [m]
    error: jax.Array  # [] of f and g at the last verdict
    step: jax.Array  # [] int32
    status: jax.Array
    counts: Counts


def model_step(
    problem: Problem,
    f: jax.Array,
    seen: Look,
    pattern: Pattern,
    shapes: tuple[Layout, Layout],
    target: jax.Array,
    counts: Counts,
) -> tuple[jax.Array, Counts]:
    """[n] f that solves the model around f, and the work it took."""
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    # Every device steps on the whole model: what it needs of the points it has.
    y = sharding.replicated(geometry.mesh, geometry.y)
    geometry = dataclasses.replace(geometry, y=y, mesh=None)
    kernel = near_kernel.build(
        geometry,
        f,
        seen.g,
        epsilon,
        pattern,
        seen.rows,
        seen.columns,
        seen.flow,
        shapes,
    )
    options = newton.NewtonOptions(linear_solver="cg", max_steps=MODEL_STEPS)
    aim = jnp.maximum(SHARE * seen.error, 0.3 * target)
    zero = jnp.asarray(0, jnp.int32)

    def steps(s):
        """Step on the model until done, or until scalings are too large for it."""
        kernel, f, g, _, counts, number, rounds = s
        setting = newton.Setting(
            kernel=kernel,
            rows=marginal.target(problem.a, problem.rho_a, f, epsilon),
            columns=marginal.target(problem.b, problem.rho_b, g, epsilon),
            gauge=hard(problem),
            total=jnp.sum(marginal.wanted(problem.a, problem.rho_a, f)),
            target=aim,
        )
        point = newton.at(setting, jnp.zeros_like(f))
        end = newton.on_kernel(
            options, setting, newton.first(options, point, number, counts)
        )
        x = jnp.where(problem.a > 0, end.point.x, 0)
        y = jnp.where(problem.b > 0, end.point.y, 0)
        f, g = f + epsilon * x, g + epsilon * y
        kernel = near_kernel.moved(kernel, geometry, f, g, epsilon, pattern, x, y)
        settled = (end.point.error <= aim) | (end.idle >= newton.IDLE)
        return kernel, f, g, settled, end.counts, end.step, rounds + 1

    def going(s):
        *_, settled, _, number, rounds = s
        return ~settled & (number < MODEL_STEPS) & (rounds < MODEL_ROUNDS)

    start = kernel, f, seen.g, jnp.asarray(False), counts, zero, zero
    _, f, _, _, done, _, _ = jax.lax.while_loop(going, steps, start)
    # Sweeps and products on the model are counted as sparse steps.
    more = done.linear_steps - counts.linear_steps + done.sweeps - counts.sweeps
    counts = counts.plus(
        newton_steps=done.newton_steps - counts.newton_steps, sparse_steps=more
    )
    return f, counts


def init(problem: Problem, f: jax.Array, count: jax.Array) -> State:
    """Start from finite row potentials f [n], `count` levels above the last."""
    n, m = problem.shape
    zero = jnp.asarray(0, jnp.int32)
    infinite = jnp.asarray(jnp.inf, problem.dtype)
    kept = min(KEPT, n, m)
    return State(
        f=f,
        base=f,
        base_error=infinite,
        base_value=-infinite,
        least=infinite,
        idle=zero,
        shorter=zero,
        repaired=jnp.asarray(False),
        history=anderson.empty(n, problem.dtype),
        pattern=near_kernel.no_pattern(n, m, kept),
        age=zero,
        level=-count,
        level_f=f,
        g=jnp.zeros_like(problem.b),
        error=infinite,
        step=zero,
        status=iteration.as_status(code(Status.RUNNING)),
        counts=iteration.no_counts(),
    )


def run(
    problem: Problem,
    options: Any,
    state: State,
    shapes: tuple[Layout, Layout],
    first_epsilon: jax.Array,
    sparse: jax.Array,
) -> State:
    """Step until the status says why to stop.

    first_epsilon: of the first level; sparse: [] bool, whether largest entries are
    looked for at once.
    """
    count = -state.level

    def at(level):
        return epsilon_at(problem.epsilon, first_epsilon, count, level + count)

    def update(s: State) -> State:
        here = problem.with_epsilon(at(s.level))
        last = s.level >= 0
        seen = look(here, s.f, shapes)
        counts = s.counts.plus(passes=1, sweeps=1)
        s = s._replace(counts=counts, step=s.step + 1)
        tolerance = jnp.asarray(options.tolerance, problem.dtype)
        target = jnp.where(
            last, goal(tolerance), jnp.maximum(LEVEL_TOLERANCE, tolerance)
        )
        out_of_steps = s.step >= options.max_steps
        done = (seen.error <= target) | out_of_steps | ~jnp.isfinite(seen.error)
        noise = 64 * unit_roundoff(problem.dtype) * jnp.abs(seen.value)
        good = (seen.error <= s.base_error) | (seen.value > s.base_value + noise)
        stuck = (s.idle >= PATIENCE) & last
        wanted = marginal.wanted(here.a, here.rho_a, s.f)
        lost = (seen.rows < LOST * wanted) & (wanted > 0)
        repair = jnp.any(lost) & ~s.repaired
        branch = jnp.where(good | (s.shorter > 2), 1, 2)
        branch = jnp.where(repair, 3, jnp.where(done | stuck, 0, branch))
        s = s._replace(repaired=repair)
        return jax.lax.switch(
            branch,
            [
                lambda: _finish(here, options, s, seen, at),
                lambda: _advance(here, s, seen, shapes, target, sparse),
                lambda: s._replace(
                    f=s.base + SHORTER * (s.f - s.base),
                    shorter=s.shorter + 1,
                    idle=s.idle + 1,
                    history=anderson.cleared(s.history),
                ),
                lambda: s._replace(
                    f=jnp.where(lost, dual.best_rows(here, seen.g), s.f),
                    history=anderson.cleared(s.history),
                    counts=s.counts.plus(passes=1),
                ),
            ],
        )

    return iteration.run(update, state)


def _advance(problem, s: State, seen: Look, shapes, target, sparse) -> State:
    """Accept f, and find the next by the model around it."""
    geometry, epsilon = problem.geometry, problem.epsilon
    slow = seen.error > SLOW * s.base_error
    begun = jnp.isinf(s.base_error)
    unlisted = ~s.pattern.used
    wanted = jnp.where(begun, sparse & unlisted, slow & ((s.age > 1) | unlisted))
    pattern = jax.lax.cond(
        wanted,
        lambda: sharding.replicated(
            geometry.mesh,
            near_kernel.find_pattern(
                geometry, s.f, seen.g, epsilon, s.pattern.row_index.shape[1]
            ),
        ),
        lambda: s.pattern,
    )
    history = jax.tree.map(
        lambda u, v: jnp.where(wanted, u, v), anderson.cleared(s.history), s.history
    )
    counts = s.counts.plus(passes=jnp.where(wanted, SEARCH, 0))
    new, counts = model_step(problem, s.f, seen, pattern, shapes, target, counts)
    change = new - s.f
    history, mixed = anderson.mix(history, s.f, change, problem.a)
    f = jnp.where(jnp.all(jnp.isfinite(mixed)), mixed, new)
    better = seen.error < 0.8 * s.least
    return s._replace(
        f=f,
        base=s.f,
        base_error=seen.error,
        base_value=seen.value,
        least=jnp.minimum(seen.error, s.least),
        idle=jnp.where(better, 0, s.idle + 1),
        shorter=jnp.asarray(0, jnp.int32),
        history=history,
        pattern=pattern,
        age=jnp.where(wanted, 0, s.age + 1),
        counts=counts,
    )


def _finish(problem, options, s: State, seen: Look, at) -> State:
    """Judge at the last epsilon, or go on to the next."""
    last = s.level >= 0
    judged = iteration.judge(
        problem,
        s.f,
        seen.g,
        s.error,
        jnp.asarray(True),
        last,
        s.step,
        options,
    )
    f, g, error, status, passes = judged
    f = jnp.where(problem.a > 0, f, far_below(problem.dtype))
    here, after = at(s.level), at(s.level + 1)
    before = at(s.level - 1)
    slope = jnp.where(jnp.any(s.level_f != s.f), (after - here) / (here - before), 0)
    ahead = s.f + jnp.where(jnp.isfinite(slope), slope, 0) * (s.f - s.level_f)
    infinite = jnp.full_like(s.least, jnp.inf)
    zero = jnp.zeros_like(s.idle)
    broken = ~jnp.isfinite(seen.error)
    limit = jnp.where(broken, code(Status.NONFINITE), code(Status.RUNNING))
    limit = jnp.where(s.step >= options.max_steps, code(Status.MAX_STEPS), limit)
    return s._replace(
        f=jnp.where(last, f, ahead),
        g=g,
        base=jnp.where(last, f, ahead),
        base_error=infinite,
        base_value=-infinite,
        least=infinite,
        idle=zero,
        shorter=zero,
        history=anderson.cleared(s.history),
        level=s.level + 1,
        level_f=s.f,
        error=jnp.where(last, error, seen.error),
        status=iteration.as_status(jnp.where(last, status, limit)),
        counts=s.counts.plus(passes=passes),
    )
