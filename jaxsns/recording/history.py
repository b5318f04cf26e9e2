"""The steps of a solve as users see them: each as it comes, or all afterwards."""

import dataclasses
import enum
import functools
from typing import NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxsns import hints
from jaxsns.status import Status

CAPACITY = 512  # rows of steps [D37]
COLUMNS = ("step", "kind", "error", "epsilon", "shift", "kept", "passes", "products")


class StepKind(enum.IntEnum):
    """How a step moved before the sweep that ends it. CHECK marks the last row."""

    SWEEP = 0  # nothing: a Sinkhorn sweep alone
    CG = 1  # a Newton step by conjugate gradients on the exact matrix
    SPARSE = 2  # by conjugate gradients on the largest entries
    PRECONDITIONED = 3  # on the exact matrix, with the largest entries to help
    CHOLESKY = 4  # by a factor of the exact matrix
    MODEL = 5  # Newton's method on the model that a pass over streamed costs left
    CHECK = 6  # no step: the error of the potentials that are returned


class Step(NamedTuple):
    """Progress report to a listener, in Python numbers; the last has the end status."""

    lane: int  # which of the problems under `vmap`
    lanes: int  # how many there are
    step: int
    kind: StepKind
    error: float  # relative L1 error of both marginals after the step
    tolerance: float
    epsilon: float  # of the step, in units of cost
    shift: float  # of the Newton matrix, over its diagonal
    kept: float  # share of the plan's entries in the Newton matrix
    passes: int  # exponentials of the whole matrix so far
    products: int  # of the linear solver so far
    status: Status  # RUNNING, or how it ended


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("table", "count"), meta_fields=()
)
@dataclasses.dataclass(frozen=True)
class History:
    """Up to 512 recorded steps of a solve, evenly spaced.

    Attributes:
      table: [513, 8] a row a step, as `rows` names the columns, NaN below the last
        step. Row 512 is no step: its error is that of the solution, its kind CHECK.
      count: [] int32 steps that were made.

    Errors of steps are seen on the stabilised kernel, and below the precision of the
    dtype they may be smaller than that of the solution, which a pass over the costs
    finds. The properties are columns, [513] or, out of `vmap`, [lanes, 513].
    """

    table: jax.Array
    count: jax.Array

    __repr__ = hints.one_line

    def _column(self, name: str) -> jax.Array:
        return self.table[..., COLUMNS.index(name)]

    @property
    def step(self) -> jax.Array:
        """Number of the step, from 1."""
        return self._column("step")

    @property
    def kind(self) -> jax.Array:
        """What was done, a `StepKind`; NaN in rows without a step, so no integer."""
        return self._column("kind")

    @property
    def error(self) -> jax.Array:
        """Relative L1 error of both marginals after the step, at its epsilon."""
        return self._column("error")

    @property
    def epsilon(self) -> jax.Array:
        """Epsilon of the step, in units of cost; larger on the way there."""
        return self._column("epsilon")

    @property
    def shift(self) -> jax.Array:
        """What was added to the Newton matrix, over its diagonal; 0 for sweeps."""
        return self._column("shift")

    @property
    def kept(self) -> jax.Array:
        """Share of the plan's entries in the Newton matrix; 1 if exact or a sweep."""
        return self._column("kept")

    @property
    def passes(self) -> jax.Array:
        """Exponentials of the whole matrix up to here."""
        return self._column("passes")

    @property
    def products(self) -> jax.Array:
        """Products of the linear solver up to here, exact and sparse."""
        return self._column("products")

    def rows(self, lane: int | tuple[int, ...] = ()) -> dict[str, np.ndarray]:
        """Columns by name without the empty rows, on the host; of one `lane`.

        Raises:
          TypeError: inside `jit`. ValueError: lanes, and not said which.
        """
        if isinstance(self.table, Tracer):
            raise TypeError("rows() works outside jit only; inside, use the columns")
        table = np.asarray(self.table)[lane]
        if table.ndim != 2:
            raise ValueError(
                f"the history of a batch {self.count.shape} needs a lane; got {lane}"
            )
        table = table[~np.isnan(table[:, 0])]
        whole = ("step", "kind", "passes", "products")
        return {
            name: table[:, k].astype(int) if name in whole else table[:, k]
            for k, name in enumerate(COLUMNS)
        }
