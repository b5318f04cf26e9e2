"""Pseudo-labels from transport of images to clusters: balanced, partial, semantic.

Sources: Caron et al., "SwAV" (NeurIPS 2020), for the balanced layer; Zhang, Ren and
He, "P2OT" (ICLR 2024), and its successor "SP2OT" (2024) for the other two. Written
from their formulas.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxsns

EPSILON = 0.1  # of -log p, as published
GAMMA = 0.3  # weight of KL(cluster sizes | uniform); published: 1
TOLERANCE = 1e-8  # of a solve
MOVED = 1e-6  # of the labels between two steps, at which they end; as published


class Labels(NamedTuple):
    """Soft labels and what it took to find them."""

    weights: jax.Array  # [n, k] at most 1 a row: n times the plan
    converged: jax.Array  # [] bool: every solve did
    steps: jax.Array  # [] solves


def ramp(progress: jax.Array, base: float = 0.1) -> jax.Array:
    """[] share of images that get labels, rising from base to 1 for progress 0 to 1."""
    return base + (1 - base) * jnp.exp(-5 * (1 - progress) ** 2)


def balanced(cost: jax.Array) -> Labels:
    """All images, and clusters of equal size: the layer of SwAV."""
    solution = jaxsns.solve(cost, epsilon=EPSILON, tolerance=TOLERANCE)
    return Labels(cost.shape[0] * solution.plan(), solution.converged, jnp.asarray(1))


def _partial_plan(cost: jax.Array, share: jax.Array):
    solution = jaxsns.solve_partial(
        cost, share=share, epsilon=EPSILON, rho_b=GAMMA, tolerance=TOLERANCE
    )
    return solution.plan(), solution.converged


def partial(cost: jax.Array, share: jax.Array) -> Labels:
    """The surest share of the images; cluster sizes pay for not being equal: P2OT."""
    plan, converged = _partial_plan(cost, share)
    return Labels(cost.shape[0] * plan, converged, jnp.asarray(1))


def majorant(
    cost: jax.Array, similarity: jax.Array, weight: jax.Array, plan: jax.Array
):
    """[n, k] costs of the linear upper bound of -weight <S, Q Q^T> at a plan Q."""
    return cost - 2 * weight * (similarity @ plan)


def semantic_step(cost, similarity, weight, share, plan):
    """One step of majorise-minimise: the next plan, and whether its solve converged."""
    return _partial_plan(majorant(cost, similarity, weight, plan), share)


@jax.jit
def semantic(
    cost: jax.Array,
    share: jax.Array,
    similarity: jax.Array,
    strength: jax.Array,
    limit: jax.Array,
) -> Labels:
    """As `partial`, with a reward for equal labels of similar images: SP2OT.

    Minimises <C, Q> - epsilon H(Q) + gamma KL - weight <S, Q Q^T> by majorising the
    last term with its tangent; each step is one partial problem. The weight is
    strength (1 - share) n / 2, so that an image whose neighbours all have one label
    gets that label cheaper by strength (1 - share), whatever n is.

    Args:
      cost: [n, k] -log p of each cluster.
      share: [] of the images that get labels.
      similarity: [n, n] symmetric and positive semi-definite.
      strength: [] in units of cost.
      limit: [] steps at most; fewer once less than MOVED of the labels moves.
    """
    n, k = cost.shape
    weight = strength * (1 - share) * n / 2
    start = jnp.ones_like(cost) * (share / (n * k))

    def unfinished(state):
        _, change, steps, _ = state
        return (change > MOVED) & (steps < limit)

    def step(state):
        plan, _, steps, good = state
        new, converged = semantic_step(cost, similarity, weight, share, plan)
        change = jnp.sum(jnp.abs(new - plan)) / share
        return new, change, steps + 1, good & converged

    first = (start, jnp.asarray(jnp.inf, cost.dtype), jnp.asarray(0), jnp.asarray(True))
    plan, _, steps, good = jax.lax.while_loop(unfinished, step, first)
    return Labels(n * plan, good, steps)


def objective(cost, plan, share, similarity=None, weight=0.0) -> jax.Array:
    """[] what `semantic` minimises, from a plan alone; the virtual column included."""
    n, k = cost.shape
    rest = 1 / n - jnp.sum(plan, axis=1)

    def entropy(x):
        return jnp.sum(jnp.where(x > 0, x * (jnp.log(jnp.where(x > 0, x, 1)) - 1), 0))

    sizes, wanted = jnp.sum(plan, axis=0), share / k
    value = jnp.sum(cost * plan) + EPSILON * (entropy(plan) + entropy(rest))
    value += GAMMA * jnp.sum(sizes * jnp.log(sizes / wanted) - sizes + wanted)
    if similarity is not None:
        value -= weight * jnp.sum((similarity @ plan) * plan)
    return value
