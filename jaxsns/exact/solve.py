"""`solve_exact`: optimal transport without entropy, with a proof."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.exact import augment, costs, streamed, ties, tree
from jaxsns.exact.pivots import crossover
from jaxsns.exact.solution import ExactSolution, Rounded
from jaxsns.geometry import CostLike, Dense, Grid, PointCloud
from jaxsns.numerics import derivative_only, is_forbidden, machine_epsilon
from jaxsns.plans.rounding import shrink, to_feasible
from jaxsns.problem import gauge
from jaxsns.problem.checks import equalised, mass_slack, validity
from jaxsns.problem.inputs import as_positive, make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solver import initial, solve
from jaxsns.solvers.batched import vmap
from jaxsns.status import Status, code

MAX_STEPS = 10_000  # pivots, and rounds of shortest paths [D46]
# Epsilon of the entropic start, of the standard deviation; float64, float32 [D46].
START, START_SINGLE = 1e-5, 1e-4
START_TOLERANCE = 1e-2  # marginal error of the entropic start [D46]
START_SWEEPS = 200  # of the entropic start at most [D46]


class _Found(NamedTuple):
    """Numbers without derivatives."""

    f: jax.Array
    g: jax.Array
    primal: jax.Array
    dual: jax.Array
    gap: jax.Array
    status: jax.Array
    steps: jax.Array
    flow: jax.Array | None
    rounded: Rounded | None


def _start_epsilon(dtype: jnp.dtype) -> float:
    """Epsilon of the start, in standard deviations of the costs."""
    return START if jnp.finfo(dtype).bits >= 64 else START_SINGLE


def _ended(gap, wanted, feasible, limited) -> jax.Array:
    """[] int32 status of what was found."""
    short = jnp.where(limited, code(Status.MAX_STEPS), code(Status.STALLED))
    status = jnp.where(gap <= wanted, code(Status.CONVERGED), short)
    lacking = jnp.where(limited, code(Status.MAX_STEPS), code(Status.INFEASIBLE))
    return jnp.where(feasible, status, lacking).astype(jnp.int32)


def _from_tree(near, cost, a, b, f: jax.Array, unit, limit) -> augment.Flow:
    """Potentials and a flow of a tree that is optimal for the costs `near`."""
    end = crossover(near, a, b, *costs.transformed(near, f), unit, limit)
    row, column, real = tree.arcs(end.parent, a.size)
    mass = jnp.where(real & (end.flow > unit), end.flow, 0)
    plan = jnp.zeros_like(cost).at[row, column].add(mass, mode="drop")
    # What was left out was negative: the rest may be too much.
    plan = plan * shrink(jnp.sum(plan, axis=1), a)[:, None]
    plan = plan * shrink(jnp.sum(plan, axis=0), b)[None, :]
    f, g = costs.transformed(cost, tree.potentials(end.parent, cost)[0])
    tight = costs.reduced(cost, f, g) <= costs.rounding(cost)
    return augment.started(f, g, jnp.where(tight, plan, 0), a, b, end.pivots)


def _start(problem: Problem, cost, init: Any, unit, limit) -> augment.Flow:
    """Potentials near the solution, and mass on arcs that are tight for them.

    Equal masses without ties begin with no mass: rounds of shortest paths, which match
    many at once, are faster there than pivots. Amounts below `unit` [] are rounding.
    """
    a, b = problem.a, problem.b
    near, tied = ties.untied(cost)
    if init is None:
        problem = dataclasses.replace(problem, geometry=Dense(near))
        out = solve(problem, tolerance=START_TOLERANCE, max_steps=START_SWEEPS)
        f = jax.lax.stop_gradient(out.f)
    else:
        f = jnp.where(a > 0, init[0], -jnp.inf)
    f = jnp.where(jnp.any(jnp.isnan(f)), 0, f)

    def from_tree() -> augment.Flow:
        return _from_tree(near, cost, a, b, f, unit, limit)

    def from_nothing() -> augment.Flow:
        f_, g_ = costs.transformed(cost, f)
        none = jnp.asarray(0, jnp.int32)
        return augment.started(f_, g_, jnp.zeros_like(cost), a, b, none)

    if cost.shape[0] != cost.shape[1]:
        return from_tree()
    matching = jnp.all(a == a[0]) & jnp.all(b == b[0]) & ~tied
    return control.cond(matching, from_nothing, from_tree)


def _of_matrix(problem: Problem, wanted, max_steps, init: Any) -> _Found:
    """Solve on a matrix of costs."""
    status = validity(problem)
    fine = status == code(Status.RUNNING)
    cost, a, b = problem.geometry.dense().cost, problem.a, problem.b
    cost = jnp.where(is_forbidden(cost), jnp.inf, cost)
    known = ~jnp.any(jnp.isnan(cost) | (cost == -jnp.inf))
    status = jnp.where(fine & ~known, code(Status.NONFINITE), status)
    fine &= known
    cost = jnp.where(fine, cost, 0)
    unit = augment.SMALL * machine_epsilon(cost.dtype) * jnp.max(a)
    limit = jnp.where(fine, max_steps, 0)
    start = _start(problem, cost, init, unit, limit)
    end = augment.augmented(cost, a, b, start, limit)
    total = jnp.sum(a)
    left = jnp.sum(jnp.maximum(end.rows, 0))
    feasible = left <= 8 * mass_slack(problem.dtype, *problem.shape) * total
    limited = (end.steps >= limit) & ~feasible
    plan = control.cond(limited, lambda: to_feasible(end.plan, a, b), lambda: end.plan)
    f, g = costs.transformed(cost, end.f)
    f, g = gauge.centre(problem, f, g)
    primal, low = costs.paid(cost, plan), costs.dual_value(a, b, f, g)
    primal = jnp.where(feasible | limited, primal, jnp.inf)
    most = costs.largest(cost) * total
    gap = costs.relative_gap(primal, low, costs.paid(jnp.abs(cost), plan), most)
    ended = _ended(gap, wanted, feasible, limited)
    out = _Found(f, g, primal, low, gap, ended, end.steps, plan, None)
    return _masked(out, fine, status)


def _masked(out: _Found, fine: jax.Array, status: jax.Array) -> _Found:
    """NaN where the input has no answer."""
    nan = lambda x: jnp.where(fine, x, jnp.nan)
    return out._replace(
        f=nan(out.f),
        g=nan(out.g),
        primal=nan(out.primal),
        dual=nan(out.dual),
        gap=nan(out.gap),
        status=jnp.where(fine, out.status, status).astype(jnp.int32),
        flow=None if out.flow is None else nan(out.flow),
    )


def _of_blocks(problem: Problem, wanted, init: Any) -> _Found:
    """Bound the optimum where costs are streamed."""
    status = validity(problem)
    fine = status == code(Status.RUNNING)
    found, gap, levels = streamed.descended(problem, wanted, init)
    f, g = gauge.centre(problem, found.f, found.g)
    low = costs.dual_value(problem.a, problem.b, f, g)
    yes = jnp.asarray(True)
    ended = _ended(gap, wanted, yes, levels >= streamed.LEVELS)
    out = _Found(f, g, found.primal, low, gap, ended, levels, None, found.plan)
    return _masked(out, fine, status)


def _as_float64(problem: Problem) -> Problem:
    """The problem in the widest float that is enabled, its totals equal in it."""
    wide = jnp.result_type(float)
    if problem.dtype == wide or jnp.finfo(problem.dtype).bits >= 64:
        return problem
    a, b = problem.a.astype(wide), problem.b.astype(wide)
    slack = mass_slack(problem.dtype, *problem.shape)
    b = equalised(b, jnp.sum(a, keepdims=True), slack)
    geometry = problem.geometry.astype(wide)
    return Problem(geometry, a, b, problem.epsilon.astype(wide))


def _with_derivative(problem: Problem, found: _Found) -> jax.Array:
    """[] the value, with the derivative of the Lagrangian at f, g and the plan."""
    f, g = jnp.where(problem.a > 0, found.f, 0), jnp.where(problem.b > 0, found.g, 0)
    moved = derivative_only(problem.a) * f, derivative_only(problem.b) * g
    value = found.primal + jnp.sum(moved[0]) + jnp.sum(moved[1])
    if found.flow is not None:
        cost = problem.geometry.dense().cost
        cost = jnp.where(found.flow > 0, cost, 0)
        return value + jnp.sum(found.flow * derivative_only(cost))
    assert found.rounded is not None
    geometry = problem.geometry.formed()
    return value + streamed.cost_derivative(geometry, found.rounded)


@hints.answered
def solve_exact(
    cost: CostLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    gap: ArrayLike | None = None,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    max_steps: ArrayLike | None = None,
) -> ExactSolution:
    """Solve optimal transport without entropy, and prove how good the answer is.

        minimise <C, P>  over P >= 0, P 1 = a, P^T 1 = b

    Args:
      cost: [n, m] costs in any unit, +inf where a pair is forbidden, or a geometry
        (`PointCloud`, `Dense`, `Grid`).
      a: [n] row masses >= 0; uniform with total 1 if None.
      b: [m] column masses >= 0 with the same total; uniform if None.
      gap: [] value minus dual value that counts as converged, relative to <|C|, P>;
        None: 1e-6 in float64, 1e-4 in float32.
      init: (f [n], g [m]) potentials to start from, e.g. of a problem nearby, in place
        of an entropic solve. They need not be feasible.
      max_steps: [] limit of pivots, and of rounds of shortest paths; None: 10,000.

    Returns:
      The `ExactSolution`: a feasible plan, feasible potentials, their values and the
      gap between them. The value can be differentiated with respect to costs or
      points, a and b, in forward and reverse mode: the derivative is the plan, f and g.
      Where the plan or the potentials are not unique, it is that of one of them, a
      subgradient (masses) or a supergradient (costs). Second derivatives are 0.

    Raises:
      TypeError, ValueError: a wrong type or shape always; bad values (NaN, negative
        masses, unequal totals) if they are not traced.

    Status: CONVERGED only if the gap is at most what was asked for; INFEASIBLE if
      forbidden pairs leave no plan (the value is inf then); STALLED if rounding, or
      the streamed path, leaves a larger gap; MAX_STEPS; for bad traced input
      INVALID_INPUT, MASS_MISMATCH or NONFINITE, with NaN.
    Precision: float64 wherever it is enabled, also for float32 input; else float32.
    Cost: an entropic solve at 1e-5 of the costs' standard deviation; then a tree in
      n + m steps of O(n + m), and pivots, at most n + m, of O(n m) each and far less on
      a CPU; then rounds of shortest paths, of O(n m), a few. An assignment whose costs
      do not tie has rounds only. Four arrays [n, m]. Points are formed into a matrix
      where `solve` would do so. Above that nothing of size [n, m] is formed, and there
      is no exact step: epsilon falls until the gap is met or 14 levels are done, so
      STALLED or MAX_STEPS is likely at 1e-6.
    Source: docs/exact.md.

    Example:
      >>> s = jaxsns.solve_exact(cost, a, b).raise_if_failed()
      >>> s.value, s.gap, s.plan()
    """
    problem = make_problem(cost, a, b, epsilon=1.0, relative_to="std")
    problem = _as_float64(problem)
    dtype = problem.dtype
    wanted = as_positive("gap", costs.default_gap(dtype) if gap is None else gap, dtype)
    steps = as_positive(
        "max_steps", MAX_STEPS if max_steps is None else max_steps, jnp.int32
    )
    start = initial(problem, init)
    geometry = problem.geometry
    in_blocks = isinstance(geometry, PointCloud) and not geometry.stored
    if isinstance(geometry, Grid):
        problem = problem.dense()
    stopped = jax.lax.stop_gradient((problem, wanted, steps, start))
    with jax.named_scope("jaxsns.solve_exact"):
        found = _run(in_blocks, *stopped)
    value = _with_derivative(problem, found)
    return ExactSolution(
        found.f,
        found.g,
        value,
        found.dual,
        found.gap,
        found.status,
        found.steps,
        found.flow,
        found.rounded,
    )


def _blocks(problem: Problem, wanted, steps, start) -> _Found:
    del steps
    first = streamed.FIRST * problem.epsilon
    return _of_blocks(problem.with_epsilon(first), wanted, start)


def _matrix(problem: Problem, wanted, steps, start) -> _Found:
    epsilon = _start_epsilon(problem.dtype) * problem.epsilon
    return _of_matrix(problem.with_epsilon(epsilon), wanted, steps, start)


_RUN = {
    True: jax.jit(vmap.batched(_blocks, None)),
    False: jax.jit(vmap.batched(_matrix, None)),
}


def _run(in_blocks: bool, *arguments: Any) -> _Found:
    return _RUN[in_blocks](*arguments)
