"""Points sorted by place into clusters of one size, so that a cluster is a slice.

Median splits along the widest direction, as in a k-d tree (Bentley, 1975). Sizes are
static: points are filled up with copies that carry no mass.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control

LEAST, MOST = 64, 2048  # clusters [D23]
# [D23]
LARGE, PARTS = 64, 8  # points of a cluster from which on it is cut, and into how many
PER_ROOT = 8  # clusters for each square root of the number of points [D23]


class ClusterLayout(NamedTuple):
    """Static numbers of a sorted cloud."""

    number: int  # of clusters
    size: int  # points in each
    empty: int  # further clusters of copies, to divide by the number of devices

    @property
    def part(self) -> int:
        """Points that are looked at together: a cluster, or an eighth of one."""
        return self.size // PARTS if self.size >= LARGE else self.size

    @property
    def total(self) -> int:
        """Points, copies included."""
        return (self.number + self.empty) * self.size


class ClusterOrder(NamedTuple):
    """Where sorted points come from, and where they go back to."""

    source: jax.Array  # [total] int32 index in the cloud
    real: jax.Array  # [total] bool: not a copy
    place: jax.Array  # [n] int32 index among the sorted

    def sort(self, values: jax.Array) -> jax.Array:
        """[total, ...] values of the sorted points, copies included."""
        return values[self.source]

    def masses(self, masses: jax.Array) -> jax.Array:
        """[total] masses of the sorted points; copies have none."""
        return jnp.where(self.real, masses[self.source], 0)

    def restore(self, values: jax.Array) -> jax.Array:
        """[n, ...] values in the order of the cloud."""
        return values[self.place]


def layout(n: int, parts: int = 1) -> ClusterLayout:
    """ClusterLayout of n points, divisible among `parts` devices."""
    wanted = min(max(PER_ROOT * math.isqrt(n), LEAST), MOST, n)
    number = 1 << (wanted.bit_length() - 1)
    size = -(-n // number)
    if size >= LARGE:
        size += -size % PARTS
    return ClusterLayout(number, size, -number % parts)


def order(points: jax.Array, shape: ClusterLayout) -> ClusterOrder:
    """Sort points [n, d] into clusters; O(n log n) for each halving."""
    n = points.shape[0]
    number, size, empty = shape
    inside = number * size
    # Copies are taken from everywhere, so that no cluster is made of copies alone.
    copies = jnp.arange(inside - n) * (n // max(inside - n, 1))
    source = jnp.concatenate([jnp.arange(n), copies]).astype(jnp.int32)
    levels = number.bit_length() - 1
    cluster = jnp.arange(number)
    of_point = jnp.repeat(cluster, size, total_repeat_length=inside)

    def halve(level, place):
        # Slices of one size at each level: the loop is compiled once, not by level.
        here = points[source[place]]
        group = cluster >> (levels - level)  # of clusters that are not yet apart

        def mean(values):  # [number, d], over the group that a cluster is in
            total = jnp.mean(values.reshape(number, size, -1), axis=1)
            total = jax.ops.segment_sum(total, group, number, indices_are_sorted=True)
            return (total / (1 << (levels - level)).astype(total.dtype))[group]

        spread = mean((here - jnp.repeat(mean(here), size, axis=0)) ** 2)
        widest = jnp.argmax(spread, axis=1)[of_point]
        key = jnp.take_along_axis(here, widest[:, None], axis=1)[:, 0]
        return jax.lax.sort((group[of_point], key, place), num_keys=2)[2]

    place = jnp.arange(inside, dtype=jnp.int32)
    place = control.fori_loop(0, levels, halve, place)
    back = jnp.zeros((inside,), jnp.int32)
    back = back.at[place].set(jnp.arange(inside, dtype=jnp.int32))[:n]
    sorted_source, real = source[place], place < n
    more = empty * size
    sorted_source = jnp.pad(sorted_source, (0, more))
    return ClusterOrder(sorted_source, jnp.pad(real, (0, more)), back)


def sums(values: jax.Array, shape: ClusterLayout) -> jax.Array:
    """[clusters, ...] sums over the points of each cluster."""
    return jnp.sum(values.reshape(-1, shape.size, *values.shape[1:]), axis=1)


def means(values: jax.Array, masses: jax.Array, shape: ClusterLayout) -> jax.Array:
    """[clusters, ...] means by mass; plain ones where there is no mass."""
    total = sums(masses, shape)
    weights = jnp.where(jnp.repeat(total, shape.size) > 0, masses, 1)
    column = weights.reshape(weights.shape + (1,) * (values.ndim - 1))
    whole = sums(weights, shape).reshape((-1,) + (1,) * (values.ndim - 1))
    # A value may be infinite where nothing is weighed.
    return sums(jnp.where(column > 0, column * values, 0), shape) / whole
