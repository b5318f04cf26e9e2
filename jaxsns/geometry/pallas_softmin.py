"""Soft minima of squared distances in one kernel that keeps nothing of the costs.

XLA forms a block of reduced costs in memory, reads it for the maximum and again for
the sum. Here a program of the kernel has some columns, goes over the rows in tiles, and
keeps a running maximum and sum (Milakov and Gimelshein, 2018): costs stay in
registers, and memory is read for points and potentials only.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.geometry import pallas

COLUMNS = 64  # of a program [D48]
ROWS = 128  # of a tile [D48]
LARGEST_DIMENSION = 16  # of points: each coordinate is written out [D48]


def check(cost: Any, dimension: int, divided: bool) -> None:
    """Refuse what there is no kernel for; raises ValueError."""
    if cost != "sqeuclidean":
        raise ValueError(
            f"pallas=True needs cost='sqeuclidean'; got {cost!r}. Leave pallas out"
        )
    if dimension > LARGEST_DIMENSION:
        raise ValueError(
            f"pallas=True needs points of at most {LARGEST_DIMENSION} dimensions; got "
            f"{dimension}. Leave pallas out"
        )
    if divided:
        raise ValueError("pallas=True works on one device; leave it or mesh out")


def _padded(x: jax.Array, axis: int, multiple: int, value: float) -> jax.Array:
    fill = [(0, 0)] * x.ndim
    fill[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, fill, constant_values=value)


def _kernel(weight_ref, x_ref, h_ref, y_ref, out_ref):
    """A block of columns against all rows; weight [1, 1], x [d, n], h [1, n]."""
    from jax.experimental import pallas as pl

    weight = weight_ref[...]
    points = [y_ref[:, k : k + 1] for k in range(y_ref.shape[1])]  # [columns, 1] each

    def tile(number, state):
        top, total = state
        here = pl.ds(pl.multiple_of(number * jnp.int32(ROWS), ROWS), ROWS)
        distance = sum(
            (point - x_ref[k : k + 1, here]) ** 2 for k, point in enumerate(points)
        )
        z = h_ref[:, here] - weight * distance
        new = jnp.maximum(top, jnp.max(z, axis=1, keepdims=True))
        sums = jnp.sum(jnp.exp(z - new), axis=1, keepdims=True)
        return new, total * jnp.exp(top - new) + sums

    low = jnp.full(out_ref.shape, jnp.finfo(out_ref.dtype).min, out_ref.dtype)
    none, count = jnp.int32(0), jnp.int32(x_ref.shape[1] // ROWS)
    top, total = jax.lax.fori_loop(none, count, tile, (low, jnp.zeros_like(low)))
    out_ref[...] = top + jnp.log(total)


def log_sums(x: jax.Array, h: jax.Array, y: jax.Array, weight: jax.Array) -> jax.Array:
    """[m] log sum_i exp(h_i - weight |x_i - y_j|^2), for x [n, d], h [n], y [m, d]."""
    m, d = y.shape
    rows = _padded(x, 0, ROWS, 0).T
    heights = _padded(h, 0, ROWS, -jnp.inf)[None]
    columns = _padded(y, 0, COLUMNS, 0)
    size = columns.shape[0]
    whole = lambda j: (0, 0)
    return pallas.call(
        _kernel,
        [jax.ShapeDtypeStruct((size, 1), h.dtype)],
        [weight[None, None], rows, heights, columns],
        (size // COLUMNS,),
        [
            ((1, 1), whole),
            (rows.shape, whole),
            (heights.shape, whole),
            ((COLUMNS, d), lambda j: (j, 0)),
        ],
        [((COLUMNS, 1), lambda j: (j, 0))],
    )[0][:m, 0]


@jax.custom_jvp
def softmin(geometry: Any, potential: jax.Array, epsilon: jax.Array) -> jax.Array:
    """[m] soft minimum over the rows of a `Streamed`; see its method."""
    check(geometry.cost, geometry.x.shape[1], geometry.mesh is not None)
    weight = 1 / epsilon if geometry.factor is None else geometry.factor / epsilon
    return -epsilon * log_sums(geometry.x, potential / epsilon, geometry.y, weight)


@softmin.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """Differentiate the plain way, which gives derivatives of any order."""

    def plain(geometry: Any, potential: jax.Array, epsilon: jax.Array) -> jax.Array:
        geometry = dataclasses.replace(geometry, pallas=False)
        return geometry.softmin(potential, epsilon, 0)

    return softmin(*primals), jax.jvp(plain, primals, tangents)[1]
