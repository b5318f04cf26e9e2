"""Blocks of points by repeated halving, all of one width.

A table [k, w] holds indices of points in k blocks, with `sizes` [k] real ones first in
each row. Halving gives [2 k, ceil(w / 2)], and sizes that differ by one at most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.numerics import matmul

REFITS = 8  # of a direction to halve two clouds along [D65]
DRAWS = 3  # of a first direction, of which the best is taken [D65]


class Blocks(NamedTuple):
    """Indices of points in blocks."""

    table: jax.Array  # [k, w] int32; beyond the size of a row anything
    sizes: jax.Array  # [k] int32: w or w - 1

    @property
    def real(self) -> jax.Array:
        """[k, w] bool: where there is a point."""
        place = jnp.arange(self.table.shape[1], dtype=self.sizes.dtype)
        return place[None, :] < self.sizes[:, None]


def whole(n: int) -> Blocks:
    """Return all n points as one block."""
    return Blocks(jnp.arange(n, dtype=jnp.int32)[None, :], jnp.full((1,), n, jnp.int32))


def depth(n: int, width: int) -> int:
    """How often n points are halved until no block is wider."""
    levels = 0
    while -(-n // 2**levels) > width:
        levels += 1
    return levels


def _orders(blocks: Blocks, score: jax.Array) -> jax.Array:
    """[k, w] places of each row by score [k, w], places without a point last."""
    order = jnp.argsort(jnp.where(blocks.real, score, jnp.inf), axis=1)
    return order.astype(jnp.int32)


def halved(blocks: Blocks, score: jax.Array) -> Blocks:
    """Twice as many blocks: the points of low and those of high score [k, w]."""
    k, width = blocks.table.shape
    order = _orders(blocks, score)
    low = (blocks.sizes + 1) // 2
    new = -(-width // 2)
    place = jnp.arange(new, dtype=low.dtype)[None, None, :]
    first = jnp.stack([jnp.zeros_like(low), low], axis=1)
    taken = jnp.minimum(first[:, :, None] + place, width - 1).reshape(k, 2 * new)
    places = jnp.take_along_axis(order, taken, axis=1)
    table = jnp.take_along_axis(blocks.table, places, axis=1).reshape(2 * k, new)
    sizes = jnp.stack([low, blocks.sizes - low], axis=1).reshape(2 * k)
    return Blocks(table, sizes)


def _along(points: jax.Array, direction: jax.Array) -> jax.Array:
    """[k, w] coordinates of points [k, w, d] along directions [k, d]."""
    return matmul(points, direction[:, :, None])[:, :, 0]


def _difference(blocks: Blocks, points: jax.Array, score: jax.Array) -> jax.Array:
    """[k, d] mean of the points of high score less that of those of low score."""
    rank = jnp.argsort(_orders(blocks, score), axis=1).astype(jnp.int32)
    low = (blocks.sizes + 1) // 2
    upper = (rank >= low[:, None]) & blocks.real
    lower = (rank < low[:, None]) & blocks.real

    def share(part):
        part = part.astype(points.dtype)
        return part / jnp.maximum(jnp.sum(part, axis=1, keepdims=True), 1)

    weights = share(upper) - share(lower)
    return matmul(weights[:, None, :], points)[:, 0]


def halved_together(
    rows: Blocks, columns: Blocks, x: jax.Array, y: jax.Array, key: jax.Array
) -> tuple[Blocks, Blocks]:
    """Halve blocks of x and of y so that halves of one side fit those of the other.

    Two halves each way cost least, as a plan of rank 2 of squared distances, where the
    product of the differences of their means is largest. For one side fixed the best
    halves of the other are those along that difference: steps cannot lower it.
    """
    points_x, points_y = x[rows.table], y[columns.table]

    def refitted(along, _):
        across = _difference(rows, points_x, _along(points_x, along))
        along = _difference(columns, points_y, _along(points_y, across))
        return along, (across, jnp.sum(along * across, axis=1))

    def drawn(key):
        start = jax.random.normal(key, (rows.sizes.shape[0], x.shape[1]), x.dtype)
        along, (across, gain) = jax.lax.scan(refitted, start, None, length=REFITS)
        return across[-1], along, gain[-1]

    across, along, gain = jax.lax.map(drawn, jax.random.split(key, DRAWS))
    best = jnp.argmax(gain, axis=0)
    chosen = lambda v: jnp.take_along_axis(v, best[None, :, None], axis=0)[0]
    # x is cut along the difference of y, y along that of x: each as the other wants.
    return (
        halved(rows, _along(points_x, chosen(along))),
        halved(columns, _along(points_y, chosen(across))),
    )


def cut_at_random(points: jax.Array, levels: int, key: jax.Array) -> Blocks:
    """Blocks of near points [n, d]: each is halved along a direction of its own."""
    blocks = whole(points.shape[0])
    for key_of in jax.random.split(key, levels):
        count = blocks.sizes.shape[0]
        direction = jax.random.normal(key_of, (count, points.shape[1]), points.dtype)
        blocks = halved(blocks, _along(points[blocks.table], direction))
    return blocks
