"""A unit in which squares of costs within spaces stay within their dtype.

The costs of the linear problems grow as squares of these. In float32 coordinates of a
few hundred pixels are enough to pass for +inf [D41], and those of 1e-6 to underflow. So
points that are that large or small are divided by a power of two, which changes no
digit, and epsilon, penalties and the costs between the spaces by its fourth power.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsns.linear.powers import power_of_two
from jaxsns.numerics import forbidden_cost
from jaxsns.problem.offsets import Offsets
from jaxsns.problem.problem import Problem
from jaxsns.quadratic.spaces import LowRank, Matrix, Points, Space
from jaxsns.quadratic.terms import Terms

ROOM = 1e-9  # largest squares of costs, over the cost of a forbidden pair [D41]


def reduced(terms: Terms) -> tuple[Terms, jax.Array]:
    """The same problem with costs that fit, and [] the unit of its objective.

    It is 1 for ordinary costs, and for the KL loss, which does not square them.
    """
    if terms.loss != "square":
        return terms, jnp.ones((), terms.masses.dtype)
    length = jnp.maximum(_length(terms.x), _length(terms.y))
    fits = (ROOM * forbidden_cost(length.dtype)) ** 0.25  # of lengths
    unit = power_of_two(jnp.maximum(length / fits, jnp.minimum(length * fits, 1)))
    x, y = _divided(terms.x, unit), _divided(terms.y, unit)
    squared = unit**2  # of the costs; applied twice, since its square may overflow
    less = lambda v: v / squared / squared
    given = terms.masses
    geometry = given.geometry
    if not terms.pure:
        geometry = geometry.scaled(1 / squared).scaled(1 / squared)
    rhos = (None if rho is None else less(rho) for rho in (given.rho_a, given.rho_b))
    masses = Problem(geometry, given.a, given.b, less(given.epsilon), *rhos)
    offsets = terms.offsets
    if offsets is not None:
        offsets = Offsets(less(offsets.rows), less(offsets.columns))
    out = dataclasses.replace(terms, x=x, y=y, masses=masses, offsets=offsets)
    return out, squared * squared


def _length(space: Space) -> jax.Array:
    """[] bound of the root of the costs."""
    norms = lambda v: jnp.sqrt(jnp.max(jnp.sum(jax.lax.stop_gradient(v) ** 2, axis=1)))
    if isinstance(space, Points):
        return 2 * norms(space.x)
    if isinstance(space, LowRank):
        return jnp.sqrt(norms(space.left) * norms(space.right))
    return jnp.sqrt(jnp.max(jnp.abs(jax.lax.stop_gradient(space.cost))))


def _divided(space: Space, unit: jax.Array) -> Space:
    if isinstance(space, Points):
        return dataclasses.replace(space, x=space.x / unit)
    if isinstance(space, LowRank):
        return LowRank(space.left / unit, space.right / unit)
    return Matrix(space.cost / unit / unit)
