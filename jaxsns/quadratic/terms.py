"""The quadratic problem as data, its linearisation and its objective.

    L(P)_ij = sum_kl loss(x_ik, y_jl) P_kl = p_i + q_j - R_ij
    Q(P) = <L(P), P>,    the gradient of Q is 2 L(P), since x and y are symmetric

p comes from the row sums of P, q from its column sums, and R is a product of x, P and
y. Source: Peyre, Cuturi, Solomon, "Gromov-Wasserstein averaging of kernel and distance
matrices" (ICML 2016), proposition 1.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from jaxsns.numerics import is_forbidden, matmul
from jaxsns.problem.offsets import Offsets
from jaxsns.problem.problem import Problem
from jaxsns.quadratic.spaces import Matrix, Space

LOSSES = ("square", "kl")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("x", "y", "alpha", "masses", "share", "offsets"),
    meta_fields=("loss", "pure"),
)
@dataclasses.dataclass(frozen=True)
class Terms:
    """All that the solution depends on, arrays of one dtype.

    Attributes:
      x: costs within the first space, n points.
      y: costs within the second space, m points.
      alpha: [] weight of the quadratic term; 1 - alpha is that of the linear one.
      masses: the linear problem: costs between the spaces (zero if there are none),
        masses, epsilon and penalties.
      share: [] share of the mass that is moved; None: all of it.
      offsets: what the costs between the spaces lost, in their units; None: nothing.
      loss: "square" or "kl".
      pure: whether there is no linear term.
    """

    x: Space
    y: Space
    alpha: jax.Array
    masses: Problem
    share: jax.Array | None
    offsets: Offsets | None
    loss: str
    pure: bool = True

    @property
    def balanced(self) -> bool:
        """Whether all of both marginals is transported."""
        return self.masses.balanced and self.share is None


def first_part(terms: Terms, rows: jax.Array) -> jax.Array:
    """[n] p for row sums [n]."""
    if terms.loss == "square":
        return terms.x.squares_times(rows)
    cost = terms.x.entries()
    safe = jnp.where(cost > 0, cost, 1)
    return matmul(jnp.where(cost > 0, cost * jnp.log(safe) - cost, 0), rows)


def second_part(terms: Terms, columns: jax.Array) -> jax.Array:
    """[m] q for column sums [m]."""
    if terms.loss == "square":
        return terms.y.squares_times(columns)
    return terms.y.times(columns[:, None])[:, 0]


def cross(terms: Terms, plan: jax.Array) -> jax.Array:
    """[n, m] R of a plan; O(n m (n + m)), or O(n m r) for factors."""
    if terms.loss == "square":
        return 2 * terms.y.times(terms.x.times(plan).T).T
    logarithms = Matrix(jnp.log(terms.y.entries()))
    return logarithms.times(terms.x.times(plan).T).T


def linearised(terms: Terms, plan: jax.Array, rows: jax.Array, columns: jax.Array):
    """[n, m] 2 L of a plan with given sums."""
    p, q = first_part(terms, rows), second_part(terms, columns)
    return 2 * (p[:, None] + q[None, :] - cross(terms, plan))


def linear_cost(terms: Terms) -> jax.Array:
    """[n, m] (1 - alpha) times the cost between the spaces; forbidden stays so."""
    if terms.pure:
        return jnp.zeros(terms.masses.shape, terms.masses.dtype)
    cost = terms.masses.geometry.dense().entries
    return jnp.where(is_forbidden(cost), cost, (1 - terms.alpha) * cost)


def offsets_of_linear(terms: Terms) -> Offsets:
    """What C(P) lacks of the costs between the spaces: [n] and [m]."""
    if terms.offsets is None:
        zero = jnp.zeros_like
        return Offsets(zero(terms.masses.a), zero(terms.masses.b))
    left = 1 - terms.alpha
    return Offsets(left * terms.offsets.rows, left * terms.offsets.columns)


def constant_parts(terms: Terms) -> Offsets:
    """What C(P) has of rows and of columns alone, whatever the plan: [n] and [m].

    Of balanced problems: its sums are the masses.
    """
    given, alpha, offsets = terms.masses, terms.alpha, offsets_of_linear(terms)
    rows = 2 * alpha * first_part(terms, given.a) + offsets.rows
    return Offsets(rows, 2 * alpha * second_part(terms, given.b) + offsets.columns)


def constant_value(terms: Terms) -> jax.Array:
    """[] what these parts pay in the objective."""
    given, alpha = terms.masses, terms.alpha
    p, q = first_part(terms, given.a), second_part(terms, given.b)
    value = alpha * Offsets(p, q).value(given.a, given.b)
    return value + offsets_of_linear(terms).value(given.a, given.b)
