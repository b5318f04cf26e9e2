"""What the steps of a solve leave on record, and tell whoever watches.

The record has a fixed number of rows, so that its shape says nothing of the length of
a solve: when they are full every second one is dropped, and from then on only every
second step is recorded, and so on. Every function takes None, for a solve that nobody
watches, and does nothing then.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.recording.counts import Counts
from jaxsns.recording.history import CAPACITY, COLUMNS, History, Step, StepKind
from jaxsns.status import Status, code

EVERY = 8  # sweeps between two calls of a listener; Newton steps are all told [D37]
SWEEP, CHECK = np.int32(StepKind.SWEEP), np.int32(StepKind.CHECK)


class RecordingOptions(NamedTuple):
    """Who wants to know: static, so that a solve without it is another program."""

    history: bool
    listener: Callable[[Step], None] | None


class Lane(NamedTuple):
    """Which of the problems under `vmap` this is."""

    which: jax.Array  # [] int32
    number: jax.Array  # [] int32


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "table",
        "count",
        "stride",
        "epsilon",
        "tolerance",
        "active",
        "lane",
    ),
    meta_fields=("listener",),
)
@dataclasses.dataclass(frozen=True)
class Recorder:
    """A record that is being written, carried through the loops."""

    table: jax.Array | None
    count: jax.Array  # [] int32
    stride: jax.Array  # [] int32 steps a row
    epsilon: jax.Array
    tolerance: jax.Array
    active: jax.Array  # [] bool: false in a lane that waits for others
    lane: Lane
    listener: Callable[[Step], None] | None


def begin(
    watch: RecordingOptions | None,
    dtype: jnp.dtype,
    tolerance: ArrayLike,
    lane: Lane | None,
) -> Recorder | None:
    """Start with empty rows."""
    if watch is None or lane is None:
        return None
    one = jnp.asarray(1, jnp.int32)
    empty = jnp.full((CAPACITY, len(COLUMNS)), jnp.nan, dtype)
    return Recorder(
        table=empty if watch.history else None,
        count=jnp.zeros_like(one),
        stride=one,
        epsilon=jnp.asarray(jnp.nan, dtype),
        tolerance=jnp.asarray(tolerance, dtype),
        active=jnp.asarray(True),
        lane=lane,
        listener=watch.listener,
    )


def at_epsilon(
    recorder: Recorder | None, epsilon: jax.Array, status: ArrayLike
) -> Recorder | None:
    """Steps from here on are at this epsilon; a lane that is not RUNNING waits."""
    if recorder is None:
        return None
    running = jnp.asarray(status == code(Status.RUNNING))
    return dataclasses.replace(recorder, epsilon=epsilon, active=running)


def record_step(
    recorder: Recorder | None,
    error: jax.Array,
    *,
    running: ArrayLike = True,
    kind: ArrayLike = SWEEP,
    shift: ArrayLike = 0.0,
    kept: ArrayLike = 1.0,
    passes: ArrayLike = 0,
    products: ArrayLike = 0,
) -> Recorder | None:
    """Record a step.

    running: whether the loop that called is at work, for under `vmap` its body runs
    in lanes that have ended as well. The record is safe from that, listeners are not.
    """
    if recorder is None:
        return None
    count = recorder.count + 1
    new = dataclasses.replace(recorder, count=count)
    if recorder.listener is not None:
        due = _due(count, kind) & recorder.active & running
        now = code(Status.RUNNING)
        _tell(new, due, kind, error, shift, kept, passes, products, now)
    if recorder.table is None:
        return new
    row = (count, kind, error, recorder.epsilon, shift, kept, passes, products)
    dtype = recorder.table.dtype
    row = jnp.stack([jnp.asarray(x).astype(dtype) for x in row])

    def thinned(table, stride):
        gone = jnp.full((CAPACITY // 2, len(COLUMNS)), jnp.nan, dtype)
        return jnp.concatenate([table[::2], gone]), 2 * stride

    full = recorder.count >= CAPACITY * recorder.stride
    table, stride = control.cond(
        full, thinned, lambda *same: same, recorder.table, recorder.stride
    )
    # Steps between two rows get an index out of range, which `mode="drop"` ignores.
    place = jnp.where(recorder.count % stride == 0, recorder.count // stride, CAPACITY)
    table = table.at[place].set(row, mode="drop")
    return dataclasses.replace(new, table=table, stride=stride)


def ended(
    recorder: Recorder, error: jax.Array, status: jax.Array, passes: jax.Array
) -> None:
    """Tell the listener how it ended."""
    if recorder.listener is not None:
        _tell(recorder, True, SWEEP, error, 0.0, 1.0, passes, 0, status)


def history(
    recorder: Recorder | None, error: jax.Array, epsilon: jax.Array, counts: Counts
) -> History | None:
    """What was recorded, None if nobody asked for it; `error` is that of the result."""
    if recorder is None or recorder.table is None:
        return None
    products = counts.linear_steps + counts.sparse_steps
    row = (recorder.count, CHECK, error, epsilon, 0.0, 1.0, counts.passes, products)
    dtype = recorder.table.dtype
    last = jnp.stack([jnp.asarray(x).astype(dtype) for x in row])
    table = jnp.concatenate([recorder.table, last[None]])
    return History(table, recorder.count)


def _due(count: jax.Array, kind: ArrayLike) -> jax.Array:
    return (count % EVERY == 1) | (kind != SWEEP)


def _tell(j: Recorder, due, kind, error, shift, kept, passes, products, status) -> None:
    assert j.listener is not None
    call = functools.partial(_call, j.listener)

    numbers = (*j.lane, j.count, kind, error, j.tolerance, j.epsilon)
    numbers += (shift, kept, passes, products, status)
    arrays = [jnp.asarray(x) for x in (due, *numbers)]
    # Without the branch a solve of thousands of sweeps would wait for Python.
    control.cond(
        arrays[0], lambda *x: jax.debug.callback(call, *x), lambda *_: None, *arrays
    )


def _call(listener: Callable[[Step], None], due, *numbers) -> None:
    if not due:  # under `vmap` the branch that calls is taken by all lanes
        return
    lane, lanes, step, kind, error, tolerance, epsilon = numbers[:7]
    shift, kept, passes, products, status = numbers[7:]
    listener(
        Step(
            lane=int(lane),
            lanes=int(lanes),
            step=int(step),
            kind=StepKind(int(kind)),
            error=float(error),
            tolerance=float(tolerance),
            epsilon=float(epsilon),
            shift=float(shift),
            kept=float(kept),
            passes=int(passes),
            products=int(products),
            status=Status(int(status)),
        )
    )
