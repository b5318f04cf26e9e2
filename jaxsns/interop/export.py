"""`register_for_export`: solutions in and out of functions that `jax.export` stores."""

import functools
import json
from typing import Any

from jaxsns.barycentres.fixed_support import Barycentre
from jaxsns.barycentres.free_support import FreeBarycentre
from jaxsns.geometry import Dense, Grid, PointCloud
from jaxsns.geometry.costs import PNorm, pnorm
from jaxsns.geometry.learnable import Parametric
from jaxsns.losses.divergence import Divergence
from jaxsns.partial import PartialSolution
from jaxsns.problem.offsets import Offsets, Reduced
from jaxsns.problem.problem import Problem
from jaxsns.recording.counts import Counts
from jaxsns.recording.history import History
from jaxsns.solution import Solution

DATACLASSES = (
    Barycentre,
    Dense,
    Divergence,
    FreeBarycentre,
    Grid,
    History,
    Parametric,
    PartialSolution,
    PointCloud,
    Problem,
    Solution,
)


def _plain(value: Any) -> Any:
    if isinstance(value, PNorm):
        return {"pnorm": value.p}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(
        "the costs of an exported PointCloud must have a name or be pnorm(p), and it "
        f"must have no mesh; got {value!r}"
    )


def _serialise(static: tuple[Any, ...]) -> bytes:
    return json.dumps([_plain(value) for value in static]).encode()


def _deserialise(text: bytes) -> tuple[Any, ...]:
    values = json.loads(bytes(text))
    return tuple(pnorm(v["pnorm"]) if isinstance(v, dict) else v for v in values)


@functools.cache
def register_for_export() -> None:
    """Let `jax.export` store functions that take or return our dataclasses.

    These are `Solution`, `PartialSolution`, `Divergence`, the barycentres, `Problem`,
    `Counts` and the geometries. Call it once in the process that serialises and once in
    each that reads; only functions of arrays, dictionaries and tuples need neither it
    nor jaxsns where they are read.

    Raises:
      ImportError: `jax.export` serialises through `flatbuffers` (extra `export`), and
        says so itself when it does. TypeError, from `Exported.serialize`: a cost given
        as a function, or a mesh; an array cannot stand for those.

    Cost: none; a second call does nothing.
    Source: `jax.export.register_pytree_node_serialization`.
    """
    from jax import export  # not needed by anybody else

    for kind in (Counts, Offsets, Reduced):
        name = f"jaxsns.{kind.__name__}"
        export.register_namedtuple_serialization(kind, serialized_name=name)
    for kind in DATACLASSES:
        export.register_pytree_node_serialization(
            kind,
            serialized_name=f"jaxsns.{kind.__name__}",
            serialize_auxdata=_serialise,
            deserialize_auxdata=_deserialise,
        )
