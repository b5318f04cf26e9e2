"""Problems of different sizes in one batch: padding with atoms of no mass.

An atom without mass changes nothing of the others, so a padded problem has the same
answer; only shapes have to be equal under `vmap`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsns import hints
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float

SMALLEST = 8  # atoms of the smallest default size [D17]


def pad(
    arrays: Sequence[Any], length: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Stack arrays of different lengths, filled up with zeros.

    Args:
      arrays: k arrays [n_i, ...] that agree in all but the first axis and in dtype.
      length: N, at least the largest n_i, which it is if None. Round it up to a
        multiple of your choice, so that few shapes are compiled.

    Returns:
      ([k, N, ...] stacked, [k, N] bool mask, True where there is an atom).

    Raises:
      ValueError: no arrays, shapes that do not fit, a length that is too small.
    """
    if not isinstance(arrays, list | tuple):
        raise TypeError(f"arrays must be a list of arrays; got {type(arrays).__name__}")
    hosts = [np.asarray(x) for x in arrays]
    if not hosts:
        raise ValueError("arrays must hold at least one array; got none")
    rest = {x.shape[1:] for x in hosts if x.ndim} if all(x.ndim for x in hosts) else {}
    if len(rest) != 1:
        raise ValueError(
            "arrays must agree in all but their first axis; got shapes "
            f"{[x.shape for x in hosts]}"
        )
    longest = max(len(x) for x in hosts)
    length = longest if length is None else arguments.as_count("length", length)
    if length < longest:
        raise ValueError(f"length must be at least {longest}; got {length}")
    out = np.zeros((len(hosts), length, *hosts[0].shape[1:]), np.result_type(*hosts))
    mask = np.zeros((len(hosts), length), bool)
    for row, keep, x in zip(out, mask, hosts, strict=True):
        row[: len(x)], keep[: len(x)] = x, True
    return jnp.asarray(out), jnp.asarray(mask)


def masses(mask: jax.Array, weights: jax.Array | None = None) -> jax.Array:
    """[..., N] masses with total 1 along the last axis, none where the mask is False.

    Proportional to weights [..., N] >= 0, or uniform. A lane without any atom gets
    no mass, and its solve the status INVALID_INPUT. Weights below 32 bits give masses
    in float32, whose total is 1 to its rounding.
    """
    mask = jnp.asarray(mask)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"mask must be boolean; got dtype {mask.dtype}")
    if weights is None:
        raw = mask.astype(jnp.result_type(float))
    else:
        weights = as_float("weights", weights)
        if weights.shape != mask.shape:
            raise ValueError(
                f"weights must have the shape of mask, {list(mask.shape)}; got "
                f"{weights.shape}"
            )
        raw = jnp.where(mask, weights, 0)
    total = jnp.sum(raw, axis=-1, keepdims=True)
    return raw / jnp.where(total > 0, total, 1)


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Problems that were padded to one shape, see `bucketed`.

    Attributes:
      indices: [k] where in the given lists they stood.
      arrays: for each list [lanes, N, ...], filled up with zeros.
      masks: for each list [lanes, N] bool, True where there is an atom.
    """

    indices: np.ndarray
    arrays: tuple[jax.Array, ...]
    masks: tuple[jax.Array, ...]

    __repr__ = hints.one_line


def _steps() -> Iterator[int]:
    """8, 12, 16, 24, 32, ...: at most half of an array is added."""
    size = SMALLEST
    while True:
        yield from (size, size + size // 2)
        size *= 2


def _size(length: int, sizes: Sequence[int] | None) -> int:
    for size in _steps() if sizes is None else sorted(sizes):
        if size >= length:
            return size
    raise ValueError(f"sizes must reach the longest array, {length}; got {sizes}")


def bucketed(
    *lists: Sequence[Any],
    sizes: Sequence[int] | None = None,
    lanes: int | None = None,
) -> list[Bucket]:
    """Pad arrays of many lengths to a few sizes, so that few shapes are compiled.

    Args:
      *lists: one or more lists of k arrays [n_i, ...], e.g. the clouds x and the
        clouds y of k problems; the arrays of one list agree in all but their first
        axis. Problems whose arrays are padded to the same sizes share a bucket.
      sizes: lengths to choose from, the least that suffices; None: 8, 12, 16, 24, 32,
        48 and so on.
      lanes: problems in a bucket, which is a part of its shape too: larger groups are
        divided, and smaller ones repeat their first problem. None: as many as there
        are.

    Returns:
      The buckets, small sizes first; `restored` puts results back into order.

    Raises:
      ValueError: no list, lists of different lengths, arrays that do not fit, sizes
        that do not reach.

    Cost: copies on the host.

    >>> xs = [np.ones((n, 2)) for n in (5, 11, 7)]
    >>> len(bucketed(xs))  # one of 8 rows, for 5 and 7, and one of 12
    2
    """
    if not lists or len({len(x) for x in lists}) != 1 or not len(lists[0]):
        raise ValueError(
            "bucketed takes one or more lists of arrays, all of one length; got "
            f"lengths {[len(x) for x in lists]}"
        )
    if lanes is not None:
        lanes = arguments.as_count("lanes", lanes)
    if sizes is not None:
        sizes = [arguments.as_count("an entry of sizes", size) for size in sizes]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, problem in enumerate(zip(*lists, strict=True)):
        shape = tuple(_size(len(x), sizes) for x in problem)
        groups.setdefault(shape, []).append(i)
    out = []
    for shape, members in sorted(groups.items()):
        most = lanes or len(members)
        for start in range(0, len(members), most):
            mine = members[start : start + most]
            full = mine + mine[:1] * (most - len(mine) if lanes else 0)
            pairs = [
                pad([x[i] for i in full], size)
                for x, size in zip(lists, shape, strict=True)
            ]
            arrays, masks = zip(*pairs, strict=True)
            out.append(Bucket(np.asarray(mine), arrays, masks))
    return out


def restored(buckets: Sequence[Bucket], results: Sequence[Any]) -> list[Any]:
    """Results of buckets, a pytree with lanes for each, as one pytree a problem.

    In the order of the lists that were given to `bucketed`; atoms that were filled up
    are still there.
    """
    out: dict[int, Any] = {}
    for bucket, result in zip(buckets, results, strict=True):
        for lane, i in enumerate(bucket.indices):
            out[int(i)] = jax.tree.map(lambda x, lane=lane: x[lane], result)
    return [out[i] for i in sorted(out)]
