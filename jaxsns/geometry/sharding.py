"""Columns divided among devices: what each does alone, and the one sum over all."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec


class Mesh(NamedTuple):
    """Devices, and the axis of them along which columns are divided; static."""

    mesh: jax.sharding.Mesh
    axis: str

    @property
    def size(self) -> int:
        """Number of devices along the axis."""
        return self.mesh.shape[self.axis]


def over_columns(where: Mesh, function: Callable) -> Callable:
    """Run a function of operands and columns on every device's own columns.

    function: of operands that all devices have, and a pytree of [m, ...] arrays that
    are divided, to (sums, outputs): sums are added up over the devices, outputs stay
    divided. If m does not divide, the last column is repeated, and `real`, [m] bool,
    tells the function which columns are none of these.
    """
    whole, part = PartitionSpec(), PartitionSpec(where.axis)

    def local(operands, columns, real):
        sums, outputs = function(operands, columns, real, where.axis)
        return jax.tree.map(lambda s: jax.lax.psum(s, where.axis), sums), outputs

    run = jax.shard_map(
        local, mesh=where.mesh, in_specs=(whole, part, part), out_specs=(whole, part)
    )

    def outer(operands, columns):
        m = jax.tree.leaves(columns)[0].shape[0]
        more = -m % where.size
        if not more:
            return run(operands, columns, None)
        index = jnp.minimum(jnp.arange(m + more), m - 1)
        filled = jax.tree.map(lambda t: t[index], columns)
        sums, outputs = run(operands, filled, jnp.arange(m + more) < m)
        return sums, jax.tree.map(lambda t: t[:m], outputs)

    return outer


def everywhere(where: Mesh, function: Callable) -> Callable:
    """Run a function that ends in collectives of its own: every device has the result.

    function: of operands that all devices have, and of the device's own columns.
    """
    whole, part = PartitionSpec(), PartitionSpec(where.axis)
    return jax.shard_map(
        function,
        mesh=where.mesh,
        in_specs=(whole, part),
        out_specs=whole,
        check_vma=False,
    )


def log_sum(where: Mesh, logs: jax.Array) -> jax.Array:
    """Logarithm of the sum over devices of numbers given by their logarithms."""
    top = jax.lax.pmax(logs, where.axis)
    return top + jnp.log(jax.lax.psum(jnp.exp(logs - top), where.axis))


def merge_largest(where: Mesh, values: jax.Array, indices: jax.Array):
    """Largest k of each row [n, k] over all devices, indices made global by the caller.

    Each device merges a share of the rows: O(n k) communication, whatever their number.
    """
    n, k = values.shape
    share = -(-n // where.size)
    fill = ((0, share * where.size - n), (0, 0))

    def exchange(t):
        t = jnp.pad(t, fill).reshape(where.size, share, k)
        t = jax.lax.all_to_all(t, where.axis, 0, 0)
        return jnp.moveaxis(t, 0, 1).reshape(share, -1)

    values, indices = exchange(values), exchange(indices)
    best, place = jax.lax.top_k(values, k)
    found = jnp.take_along_axis(indices, place, axis=1)
    gather = lambda t: jax.lax.all_gather(t, where.axis, tiled=True)[:n]
    return gather(best), gather(found)


def varying(values: Any, axis: str | None) -> Any:
    """Mark constants as different from device to device along an axis, if any.

    The carry of a loop must say from the start what the loop makes of it.
    """
    if axis is None:
        return values
    return jax.tree.map(lambda x: jax.lax.pcast(x, (axis,), to="varying"), values)


def replicated(where: Mesh | None, value: Any) -> Any:
    """Give every device the whole of arrays [m, ...]; O(m) communication."""
    if where is None:
        return value
    spec = jax.sharding.NamedSharding(where.mesh, PartitionSpec())
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec), value)
