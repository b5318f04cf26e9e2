"""The linear problem of a plan, and what a solution of it shows, where [n, m] fits.

What is carried from one linear problem to the next is its cost C [n, m] and, where
marginals are penalised, the mass of the plan that C was made of. Balanced problems
carry C without offsets of rows and of columns. These change no plan, and may be
thousands of times epsilon: in float32 they would take the digits of the rest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.numerics import safe_log
from jaxsns.outer.form import Evaluation
from jaxsns.partial import extend
from jaxsns.problem import dual, gauge
from jaxsns.problem.problem import Problem
from jaxsns.quadratic.terms import (
    Terms,
    first_part,
    linear_cost,
    linearised,
    offsets_of_linear,
    second_part,
)


class Carried(NamedTuple):
    """Where a linear problem comes from; sums and multiples of it are of use."""

    cost: jax.Array  # [n, m]
    mass: jax.Array  # [] of the plan, 1 where it is not needed
    rows: jax.Array  # [n] what the cost lost; zero if marginals are not equalities
    columns: jax.Array  # [m]


def problem(terms: Terms, carried: Carried) -> Problem:
    """Return the linear problem."""
    given = terms.masses
    out = Problem(Dense(carried.cost), given.a, given.b, given.epsilon)
    if terms.share is not None:
        return extend(out, terms.share, True, True)
    if terms.balanced:
        return out
    scaled = lambda rho: None if rho is None else rho * carried.mass
    rho_a, rho_b = scaled(given.rho_a), scaled(given.rho_b)
    epsilon = given.epsilon * carried.mass
    return Problem(Dense(carried.cost), given.a, given.b, epsilon, rho_a, rho_b)


def carry(terms: Terms, plan: jax.Array) -> Carried:
    """What a plan [n, m] carries to the next linear problem."""
    if terms.balanced:
        # The sums that the plan has at the solution: fewer derivatives, less rounding.
        rows, columns = terms.masses.a, terms.masses.b
    else:
        rows, columns = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    cost = terms.alpha * linearised(terms, plan, rows, columns) + linear_cost(terms)
    if terms.balanced:
        return _without_offsets(terms, cost)
    if terms.masses.balanced:
        return Carried(cost, jnp.ones((), cost.dtype), *nothing(terms))
    return _penalised(terms, plan, rows, columns, cost)


def nothing(terms: Terms) -> tuple[jax.Array, jax.Array]:
    """No offsets, [n] and [m]."""
    given = terms.masses
    return jnp.zeros_like(given.a), jnp.zeros_like(given.b)


def _without_offsets(terms: Terms, cost: jax.Array) -> Carried:
    """Costs less their offsets, in a dtype that has no digits to spare for these."""
    given, one = terms.masses, jnp.ones((), cost.dtype)
    parts = Dense(cost).reduced(given.a > 0, given.b > 0)
    if parts is None:
        return Carried(cost, one, *nothing(terms))
    less, rows, columns = parts
    return Carried(less.entries, one, rows, columns)


def evaluate(terms: Terms, carried: Carried, f: jax.Array, g: jax.Array) -> Evaluation:
    """What potentials of the linear problem of `carried` show."""
    linear = problem(terms, carried)
    whole = dual.plan(linear, f, g)
    own = whole if terms.share is None else whole[:-1, :-1]
    if terms.masses.balanced:
        new = carry(terms, own)
        inner = dual.linear_part(linear, f, g) - linear.epsilon * jnp.sum(whole)
        value = _balanced_value if terms.balanced else _value
        return Evaluation(new, own, *value(terms, carried, new, own, inner))
    # The biconvex problem is as good with masses equalised, unless a marginal has its.
    equalised = own * jnp.sqrt(carried.mass / jnp.sum(own))
    rhos = terms.masses.rho_a, terms.masses.rho_b
    fixed = [jnp.asarray(True) if r is None else jnp.isinf(r[0]) for r in rhos]
    own = jnp.where(fixed[0] | fixed[1], own, equalised)
    new = carry(terms, own)
    return Evaluation(new, own, *_penalised_value(terms, new, own, f, g))


def change(old: jax.Array, new: jax.Array) -> jax.Array:
    """[] L1 difference of two plans, relative to the mass."""
    return jnp.sum(jnp.abs(new - old)) / jnp.sum(new)


def _value(terms: Terms, carried: Carried, new: Carried, plan, inner: jax.Array):
    """The objective, with the surplus of the marginals paid by the potentials.

    So it is exact to second order in the marginal error, as the dual of a linear
    problem is; also for a cost that is not that of the plan.

    inner: [] dual value of the linear problem.
    """
    linear = linear_cost(terms)
    half = jnp.sum((new.cost + linear) * plan) / 2 - jnp.sum(carried.cost * plan)
    size = jnp.sum(jnp.abs(carried.cost) * plan)
    return half + inner, size + jnp.abs(inner)


def _balanced_value(terms: Terms, carried: Carried, new: Carried, plan, inner):
    """The same without offsets; those of linear costs are paid by the masses once."""
    a, b = terms.masses.a, terms.masses.b
    rows, columns = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    # What depends on the sums is linear here, so that its gradient is in the cost.
    p, q = first_part(terms, a), second_part(terms, b)
    half = jnp.sum((new.cost + linear_cost(terms)) * plan) / 2
    half += (jnp.sum(new.rows * rows) + jnp.sum(new.columns * columns)) / 2
    surplus = jnp.sum((carried.rows - terms.alpha * p) * (rows - a))
    surplus += jnp.sum((carried.columns - terms.alpha * q) * (columns - b))
    constant = offsets_of_linear(terms).value(a, b)
    size = jnp.sum(jnp.abs(carried.cost) * plan) + jnp.abs(inner) + jnp.abs(constant)
    value = half - jnp.sum(carried.cost * plan) - surplus + inner
    return constant + value, size


def potentials(terms: Terms, carried: Carried, f: jax.Array, g: jax.Array):
    """Potentials of the linearised cost, from those of `problem`: ([n], [m])."""
    n, m = terms.masses.shape
    if not terms.balanced:
        return f[:n], g[:m]
    rows, columns = offsets_of_linear(terms)
    rows, columns = rows + carried.rows, columns + carried.columns
    return gauge.centre(terms.masses, f + rows, g + columns)


def _logarithms(terms: Terms, plan, rows, columns):
    """<r, log r/a>, <c, log c/b>, <P, log P/(a b)>, and log a + log b."""
    given = terms.masses
    log_a = jnp.where(given.a > 0, safe_log(jnp.where(given.a > 0, given.a, 1)), 0)
    log_b = jnp.where(given.b > 0, safe_log(jnp.where(given.b > 0, given.b, 1)), 0)
    safe = lambda p: jnp.log(jnp.where(p > 0, p, 1))
    entropy = lambda p: jnp.sum(jnp.where(p > 0, p * safe(p), 0))
    reference = jnp.sum(rows * log_a), jnp.sum(columns * log_b)
    return (
        entropy(rows) - reference[0],
        entropy(columns) - reference[1],
        entropy(plan) - reference[0] - reference[1],
        log_a[:, None] + log_b[None, :],
    )


def _weight(rho: jax.Array | None) -> jax.Array | float:
    """[] a penalty's weight; equality pays nothing."""
    return 0.0 if rho is None else jnp.where(jnp.isinf(rho[0]), 0, rho[0])


def _penalised(terms: Terms, plan, rows, columns, cost) -> Carried:
    given, mass = terms.masses, jnp.sum(plan)
    of_rows, of_columns, of_plan, logarithms = _logarithms(terms, plan, rows, columns)
    constant = _weight(given.rho_a) * of_rows + _weight(given.rho_b) * of_columns
    constant += given.epsilon * of_plan
    cost = cost + constant - given.epsilon * mass * logarithms
    return Carried(cost, mass, *nothing(terms))


def _penalised_value(terms: Terms, new: Carried, plan: jax.Array, f, g):
    """The objective; a marginal that is not penalised is paid by its potential."""
    given, mass = terms.masses, jnp.sum(plan)
    rows, columns = jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)
    of_rows, of_columns, of_plan, logarithms = _logarithms(terms, plan, rows, columns)
    rhos = _weight(given.rho_a), _weight(given.rho_b)
    constant = rhos[0] * of_rows + rhos[1] * of_columns + given.epsilon * of_plan
    pure = new.cost - constant + given.epsilon * mass * logarithms
    # KL(u x u | v x v) = 2 |u| <u, log u / v> - |u|^2 + |v|^2
    a, b = jnp.sum(given.a), jnp.sum(given.b)
    tensor = lambda term, reference: mass * term + (reference**2 - mass**2) / 2
    value = jnp.sum((pure + linear_cost(terms)) * plan) / 2
    value += rhos[0] * tensor(of_rows, a) + rhos[1] * tensor(of_columns, b)
    value += given.epsilon * tensor(of_plan, a * b)
    if given.rho_a is None:
        value += jnp.sum((given.a - rows) * jnp.where(given.a > 0, f, 0))
    if given.rho_b is None:
        value += jnp.sum((given.b - columns) * jnp.where(given.b > 0, g, 0))
    return value, jnp.abs(value) + mass * jnp.abs(constant)
