"""What an iteration leaves behind, and what is said about it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.problem.checks import validity
from jaxsns.problem.feasibility import infeasible
from jaxsns.problem.problem import Problem
from jaxsns.recording.counts import Counts
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers.loop import as_status
from jaxsns.status import Status, code


class Outcome(NamedTuple):
    """What an iteration leaves behind."""

    f: jax.Array  # [n]
    g: jax.Array  # [m]
    error: jax.Array  # []
    status: jax.Array  # [] int32
    counts: Counts
    record: Recorder | None = None


def input_status(problem: Problem, options: Any) -> jax.Array:
    """[] int32 status of all numbers that are given: RUNNING if they are fine."""
    status = validity(problem)
    invalid = as_status(code(Status.INVALID_INPUT))
    return jnp.where(options.tolerance > 0, status, invalid)


def mask_invalid(status_of_input, f, g, error, status, counts, record=None) -> Outcome:
    """NaN where there is no answer; [] or, with f and g lanes last, [lanes]."""
    fine = status_of_input == code(Status.RUNNING)
    status = jnp.where(fine, status, status_of_input).astype(jnp.int32)
    bad = ~fine | (status == code(Status.NONFINITE))
    f, g = jnp.where(bad, jnp.nan, f), jnp.where(bad, jnp.nan, g)
    return Outcome(f, g, jnp.where(fine, error, jnp.nan), status, counts, record)


def explain_failure(problem: Problem, f, g, status) -> jax.Array:
    """[] the status, or INFEASIBLE where that can be proved of a failed solve."""
    failed = (status == code(Status.MAX_STEPS)) | (status == code(Status.STALLED))
    proved = control.cond(
        failed,
        lambda: infeasible(problem, f, g),
        lambda: jnp.asarray(False),
    )
    return jnp.where(proved, code(Status.INFEASIBLE), status)
