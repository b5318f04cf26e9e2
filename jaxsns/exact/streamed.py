"""Bounds of the unregularised optimum from entropic potentials, without a matrix."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.exact.costs import dual_value, relative_gap
from jaxsns.exact.solution import Rounded
from jaxsns.geometry import Streamed, TransposedCost
from jaxsns.numerics import derivative_only, is_forbidden, safe_log
from jaxsns.plans.rounding import shrink
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.solver import solve

FIRST = 1e-2  # first epsilon, of the standard deviation of the costs [D46]
FACTOR = 4.0  # by which epsilon falls [D46]
LEVELS = 14  # of epsilon at most [D46]
TOLERANCE = 0.1  # marginal error of a level, of the gap asked for [D46]
SWEEPS = 300  # of a level at most [D46]


class Bounds(NamedTuple):
    """Feasible potentials and a feasible plan."""

    f: jax.Array  # [n] in units of cost
    g: jax.Array  # [m]
    primal: jax.Array  # [] <C, P>
    magnitude: jax.Array  # [] <|C|, P>
    largest: jax.Array  # [] largest |C| of a permitted pair
    plan: Rounded


def _alone(geometry: Streamed) -> Streamed:
    """The geometry without its columns, for a function of some of them."""
    return dataclasses.replace(geometry, y=geometry.y[:1], mesh=None)


def _column_potentials(geometry: Streamed, f: jax.Array):
    """[m] min_i (C_ij - f_i), and [m] largest |C_ij|; one pass."""

    def block(z, y, local):
        cost = local.cost_block(y)
        size = jnp.where(is_forbidden(cost), 0, jnp.abs(cost))
        return (), (-jnp.max(z, axis=1), jnp.max(size, axis=1))

    one = jnp.ones((), f.dtype)
    return geometry.columns(block, f, one, geometry.y, _alone(geometry))[1]


def _paid(geometry: Streamed, f, g, epsilon, rows, columns):
    """([], []) <C, P> and <|C|, P> of a plan and of a matrix of rank one."""

    def block(z, given, shared):
        y, log_v, share = given
        local, rows = shared
        plan = jnp.exp(z + log_v[:, None])
        cost = local.cost_block(y)
        # The plan is a constant in derivatives: see `cost_derivative`.
        mass = jax.lax.stop_gradient(plan) + share[:, None] * rows[None, :]
        cost = jnp.where(is_forbidden(cost) & (mass > 0), jnp.inf, cost)
        paid = jnp.where(mass > 0, cost * mass, 0)
        return (jnp.sum(paid), jnp.sum(jnp.abs(paid))), ()

    total = jnp.sum(rows)
    share = columns / jnp.where(total > 0, total, 1)
    inputs = geometry.y, g / epsilon, share
    return geometry.columns(block, f, epsilon, inputs, (_alone(geometry), rows))[0]


def _rounded(problem: Problem, f: jax.Array, g: jax.Array) -> Rounded:
    """Scale rows, then columns, down to their masses, as `round_to_feasible` does."""
    f, g = dual.finite(problem, f, g)
    epsilon = problem.epsilon
    sums = problem.geometry.marginals(f, g, epsilon)[0]
    f = f + epsilon * safe_log(shrink(sums, problem.a))
    sums = problem.geometry.marginals(f, g, epsilon)[1]
    g = g + epsilon * safe_log(shrink(sums, problem.b))
    f, g = dual.finite(problem, f, g)
    rows, columns = problem.geometry.marginals(f, g, epsilon)
    rows, columns = problem.a - rows, problem.b - columns
    return Rounded(problem, f, g, jnp.maximum(rows, 0), jnp.maximum(columns, 0))


def bounds(problem: Problem, f: jax.Array, g: jax.Array) -> Bounds:
    """Bounds from entropic potentials of a problem whose costs are streamed.

    Six passes over blocks of the costs, O(n + m) memory beside them.
    """
    problem = problem.formed()
    plan, geometry = _rounded(problem, f, g), problem.geometry
    f, g = dual.finite(problem, f, g)
    if isinstance(geometry, TransposedCost):
        f, largest = _column_potentials(geometry.other, g)
        parts = plan.g, plan.f, problem.epsilon, plan.columns, plan.rows
        primal, magnitude = _paid(geometry.other, *parts)
    else:
        g, largest = _column_potentials(geometry, f)
        f, _ = _column_potentials(geometry.transposed(), g)
        parts = plan.f, plan.g, problem.epsilon, plan.rows, plan.columns
        primal, magnitude = _paid(geometry, *parts)
    return Bounds(f, g, primal, magnitude, jnp.max(largest), plan)


class _Level(NamedTuple):
    f: jax.Array  # of the least gap
    g: jax.Array
    epsilon: jax.Array  # that of f and g
    gap: jax.Array
    number: jax.Array  # int32 of levels
    going: jax.Array  # bool: the last level was solved


def gap_of(problem: Problem, found: Bounds) -> jax.Array:
    """[] relative gap of bounds."""
    low = dual_value(problem.a, problem.b, found.f, found.g)
    mass = jnp.sum(problem.a)
    return relative_gap(found.primal, low, found.magnitude, found.largest * mass)


def descended(
    problem: Problem, wanted: jax.Array, init: Any
) -> tuple[Bounds, jax.Array, jax.Array]:
    """Bounds, their gap, and the levels of epsilon that were solved.

    problem: with epsilon the first one. The least gap of all levels counts.
    """
    first = problem.epsilon
    zero = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    f, g = zero if init is None else init
    tolerance = jnp.minimum(TOLERANCE, TOLERANCE * wanted).astype(problem.dtype)

    def level(s: _Level) -> _Level:
        epsilon = first * FACTOR ** -s.number.astype(first.dtype)
        here = problem.with_epsilon(epsilon)
        out = solve(here, init=(s.f, s.g), tolerance=tolerance, max_steps=SWEEPS)
        f, g = jax.lax.stop_gradient((out.f, out.g))
        gap = gap_of(here, bounds(here, f, g))
        better = gap < s.gap
        pick = lambda u, v: jnp.where(better, u, v)
        best = pick(f, s.f), pick(g, s.g), pick(epsilon, s.epsilon), pick(gap, s.gap)
        return _Level(*best, s.number + 1, out.converged)

    start = _Level(
        f,
        g,
        first,
        jnp.asarray(jnp.inf, f.dtype),
        jnp.asarray(0, jnp.int32),
        jnp.asarray(True),
    )
    more = lambda s: s.going & (s.gap > wanted) & (s.number < LEVELS)
    end = control.while_loop(more, level, start)
    found = bounds(problem.with_epsilon(end.epsilon), end.f, end.g)
    return found, end.gap, end.number


def cost_derivative(geometry: Any, plan: Rounded) -> jax.Array:
    """[] 0 with the derivative of <C, P> in the costs, for a plan that is fixed.

    geometry: the costs of the plan as they are differentiated.
    """
    plan = jax.lax.stop_gradient(plan)
    epsilon = plan.problem.epsilon
    if isinstance(geometry, TransposedCost):
        parts = plan.g, plan.f, epsilon, plan.columns, plan.rows
        return derivative_only(_paid(geometry.other, *parts)[0])
    parts = plan.f, plan.g, epsilon, plan.rows, plan.columns
    return derivative_only(_paid(geometry, *parts)[0])
