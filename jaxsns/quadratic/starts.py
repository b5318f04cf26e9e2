"""Where the outer iteration starts: what the first linearisation is made of.

The problem is not convex: where it starts decides which minimum it ends at. Besides
the product of the masses, starts are monotone couplings of a number for each point:
points are sorted by it, and mass is moved in that order.
"""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns.numerics import matmul
from jaxsns.problem import arguments
from jaxsns.problem.checks import is_traced
from jaxsns.problem.inputs import as_float
from jaxsns.quadratic import dense_form, forms, streamed_form
from jaxsns.quadratic.terms import Terms

# Where to start: one of INITS, numbers of the points to sort them by, or a plan.
Start: TypeAlias = str | tuple[ArrayLike, ArrayLike] | ArrayLike

INITS = ("product", "eccentricity", "random")


def _masses(terms: Terms) -> tuple[jax.Array, jax.Array]:
    """([n], [m]) masses of one total, that of a plan."""
    a, b = terms.masses.a, terms.masses.b
    share = 1.0 if terms.share is None else terms.share
    total = share * jnp.minimum(jnp.sum(a), jnp.sum(b))
    return total * a / jnp.sum(a), total * b / jnp.sum(b)


def _product(terms: Terms) -> Any:
    rows, columns = _masses(terms)
    columns = columns / jnp.sum(columns)
    if not forms.streamed(terms):
        return dense_form.carry(terms, rows[:, None] * columns[None, :])
    x, y = streamed_form.sides(terms)
    left = matmul(x.basis.T, rows[:, None])
    return matmul(left, matmul(columns[None, :], y.basis))


def _of_plan(terms: Terms, plan: jax.Array) -> Any:
    if not forms.streamed(terms):
        return dense_form.carry(terms, plan)
    x, y = streamed_form.sides(terms)
    return matmul(x.basis.T, matmul(plan, y.basis))


@jax.jit
def monotone(terms: Terms, first: jax.Array, second: jax.Array) -> Any:
    """What the coupling carries that sends points in the order of numbers [n], [m]."""
    rows, columns = _masses(terms)
    i, j = jnp.argsort(first), jnp.argsort(second)
    ends = jnp.cumsum(rows[i]), jnp.cumsum(columns[j])
    at = jnp.sort(jnp.concatenate(ends))
    before = jnp.concatenate([jnp.zeros_like(at[:1]), at[:-1]])
    mass, middle = at - before, (at + before) / 2
    place = lambda ends, order: order[
        jnp.minimum(jnp.searchsorted(ends, middle), order.shape[0] - 1)
    ]
    i, j = place(ends[0], i), place(ends[1], j)
    if forms.streamed(terms):
        x, y = streamed_form.sides(terms)
        return matmul((x.basis[i] * mass[:, None]).T, y.basis[j])
    plan = jnp.zeros(terms.masses.shape, mass.dtype).at[i, j].add(mass)
    return dense_form.carry(terms, plan)


def random(terms: Terms, key: jax.Array) -> Any:
    """ClusterOrder of a random combination of each space's columns of costs."""
    scores = []
    sides = (terms.x, terms.masses.a), (terms.y, terms.masses.b)
    for own, (space, masses) in zip(jax.random.split(key), sides, strict=True):
        weights = masses * jax.random.normal(own, masses.shape, masses.dtype)
        # Total zero: else the combination is near the eccentricity.
        weights = weights - masses * jnp.sum(weights) / jnp.sum(masses)
        scores.append(space.times(weights[:, None])[:, 0])
    return monotone(terms, *scores)


def start(terms: Terms, init: Any, key: Any, starts: int) -> Any:
    """What the first linear problems are made of, [starts, ...]."""
    alone = lambda carried: jax.tree.map(lambda v: v[None], carried)
    if isinstance(init, str):
        if init not in INITS:
            names = ", ".join(INITS)
            raise ValueError(
                f"init must be a plan [n, m], numbers ([n], [m]) to sort points by, or "
                f"one of {names}; got {init!r}"
            )
        if init == "random":
            if key is None:
                raise ValueError("init='random' needs key, one of jax.random.key(seed)")
            keys = jax.random.split(arguments.as_key("key", key), starts)
            return jax.lax.map(lambda k: random(terms, k), keys)
        if init == "product":
            return alone(_product(terms))
        ecc = (
            space.squares_times(masses) / jnp.sum(masses)
            for space, masses in (
                (terms.x, terms.masses.a),
                (terms.y, terms.masses.b),
            )
        )
        return alone(monotone(terms, *ecc))
    n, m = terms.masses.shape
    dtype = terms.masses.dtype
    if isinstance(init, tuple | list) and len(init) == 2:
        first, second = as_float("init[0]", init[0]), as_float("init[1]", init[1])
        if first.shape != (n,) or second.shape != (m,):
            raise ValueError(
                f"init must hold numbers of shapes [n] = [{n}] and [m] = [{m}]; got "
                f"{first.shape} and {second.shape}"
            )
        if not is_traced(first, second):
            if not (np.isfinite(first).all() and np.isfinite(second).all()):
                raise ValueError("init must hold finite numbers to sort points by")
        return alone(monotone(terms, first.astype(dtype), second.astype(dtype)))
    plan = as_float("init", init)
    if plan.shape != (n, m):
        raise ValueError(f"init must have shape [n, m] = {[n, m]}; got {plan.shape}")
    if not is_traced(plan):
        host = np.asarray(plan)
        if not (np.isfinite(host) & (host >= 0)).all() or host.sum() <= 0:
            raise ValueError("init must be a plan: finite masses >= 0, not all zero")
    return alone(_of_plan(terms, plan.astype(dtype)))
