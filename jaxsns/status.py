"""How a solve can end, as data that survives `jit` and `vmap`."""

import enum
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


class Status(enum.IntEnum):
    """Why an iteration stopped; stored as an int32 scalar (one a batch element)."""

    RUNNING = 0
    CONVERGED = 1
    MAX_STEPS = 2
    NONFINITE = 3
    STALLED = 4
    INVALID_INPUT = 5
    MASS_MISMATCH = 6
    INFEASIBLE = 7


WORSE = (  # than CONVERGED, the worst last
    Status.RUNNING,
    Status.MAX_STEPS,
    Status.STALLED,
    Status.INFEASIBLE,
    Status.NONFINITE,
    Status.MASS_MISMATCH,
    Status.INVALID_INPUT,
)
_TEXT = {
    Status.RUNNING: "not finished",
    Status.CONVERGED: "the marginal error is at most the tolerance",
    Status.MAX_STEPS: "the step limit was reached first; raise max_steps or tolerance",
    Status.NONFINITE: "a NaN or an infinity appeared; look for one in points or costs",
    Status.STALLED: (
        "the error stopped falling, at the precision of the dtype (raise tolerance "
        "or epsilon, or use float64) or, with 'sns', in a failed line search"
    ),
    Status.INVALID_INPUT: (
        "a mass is negative or not finite, a total is zero, epsilon or tolerance "
        "is not positive and finite, or a rho is not positive"
    ),
    Status.MASS_MISMATCH: "the totals of a and b differ; normalise both",
    Status.INFEASIBLE: (
        "forbidden pairs (infinite costs) leave no plan with these marginals: some "
        "rows have more mass than the columns that they may use; relax one marginal"
    ),
}


def code(status: Status) -> np.int32:
    """Return the status as it is carried in arrays; a plain enum would be int64."""
    return np.int32(status)


def describe(status: int | Status) -> str:
    """Say in one line what a status means and what to do about it."""
    status = Status(int(status))
    return f"{status.name}: {_TEXT[status]}"


def worst(statuses: Sequence[jax.Array]) -> jax.Array:
    """[...] int32, the worst of some statuses, element by element."""
    out = jnp.full_like(statuses[0], code(Status.CONVERGED))
    for bad in WORSE:
        found = functools.reduce(jnp.logical_or, [x == code(bad) for x in statuses])
        out = jnp.where(found, code(bad), out)
    return out
