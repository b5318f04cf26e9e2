"""Clusters of matched pairs: what turns a plan of full rank into one of low rank.

The plan pairs row i with what it sends its mass to. Rows in a cluster share their
targets. Where costs are C = L M^T, the plan of some labels costs sum_k g_k <l_k, m_k>:
l_k is the mean of L over a cluster, m_k that of what its rows are sent to. Lloyd's
steps lower it. Pairs of an optimal plan are monotone, so C_ik + C_ki - C_ii - C_kk of
two pairs, what exchanging their targets costs, is a squared distance for the start.
Sources: transport clustering, arXiv 2603.03578; k-means++ (Arthur, Vassilvitskii).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.low_rank.solution import inverse
from jaxsns.numerics import matmul, safe_log, vdot

MOST_STEPS = 100  # of Lloyd's iteration [D64]


class Pairs(NamedTuple):
    """Rows and their targets: sending row i to target k costs <left_i, right_k>."""

    left: jax.Array  # [n, q]
    right: jax.Array  # [n, q]
    mass: jax.Array  # [n]

    @property
    def own(self) -> jax.Array:
        """[n] cost of each row and its own target."""
        return jnp.sum(self.left * self.right, axis=1)


class _Clusters(NamedTuple):
    mass: jax.Array  # [r]
    left: jax.Array  # [r, q] means
    right: jax.Array  # [r, q]


def _clusters(pairs: Pairs, labels: jax.Array, rank: int) -> _Clusters:
    total = lambda table: jax.ops.segment_sum(table, labels, rank)
    mass = total(pairs.mass)
    weigh = lambda table: inverse(mass)[:, None] * total(pairs.mass[:, None] * table)
    return _Clusters(mass, weigh(pairs.left), weigh(pairs.right))


def _cost(clusters: _Clusters) -> jax.Array:
    return vdot(clusters.mass, jnp.sum(clusters.left * clusters.right, axis=1))


def _started(pairs: Pairs, rank: int, key: jax.Array) -> jax.Array:
    """[n] int32 labels: pairs that start a cluster are drawn far from each other."""
    own = pairs.own

    def distance(k: jax.Array) -> jax.Array:
        across = matmul(pairs.left, pairs.right[k]) + matmul(pairs.right, pairs.left[k])
        return jnp.maximum(across - own - own[k], 0)

    def draw(key: jax.Array, weight: jax.Array) -> jax.Array:
        return jax.random.categorical(key, safe_log(weight))

    keys = jax.random.split(key, rank)
    labels = jnp.zeros(own.shape, jnp.int32)

    def add(number, s):
        nearest, labels = s
        away = distance(draw(keys[number], pairs.mass * nearest))
        closer = away < nearest
        number = jnp.asarray(number, labels.dtype)
        return jnp.where(closer, away, nearest), jnp.where(closer, number, labels)

    first = distance(draw(keys[0], pairs.mass))
    return control.fori_loop(1, rank, add, (first, labels))[1]


def cluster(pairs: Pairs, rank: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """([n] int32 labels, [] cost of their plan), from one start. O(n q r) a step."""

    def step(s):
        labels, best, number, _ = s
        mean = _clusters(pairs, labels, rank)
        score = matmul(pairs.left, mean.right.T) + matmul(pairs.right, mean.left.T)
        score = score - jnp.sum(mean.left * mean.right, axis=1)[None, :]
        score = jnp.where(mean.mass[None, :] > 0, score, jnp.inf)
        new = jnp.argmin(score, axis=1).astype(labels.dtype)
        cost = _cost(_clusters(pairs, new, rank))
        # Scores are those of the means before: steps need not lower the cost for ever.
        better = cost < best
        labels = jnp.where(better, new, labels)
        return labels, jnp.where(better, cost, best), number + 1, better

    labels = _started(pairs, rank, key)
    cost = _cost(_clusters(pairs, labels, rank))
    going = lambda s: s[3] & (s[2] < MOST_STEPS)
    start = labels, cost, jnp.int32(0), jnp.asarray(True)
    labels, cost, _, _ = control.while_loop(going, step, start)
    return labels, cost
