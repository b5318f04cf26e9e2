"""What an iteration leaves behind, and what is said about it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.problem.checks import validity
from jaxsns.problem.feasibility import infeasible
from jaxsns.problem.problem import Problem
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.registry import Options
from jaxsns.status import Status, code


class Outcome(NamedTuple):
    """What an iteration leaves behind."""

    f: jax.Array  # [n]
    g: jax.Array  # [m]
    error: jax.Array  # []
    status: jax.Array  # [] int32
    counts: Counts
    recorder: Recorder | None = None


def input_status(problem: Problem, options: Options) -> jax.Array:
    """[] int32 status of all numbers that are given: RUNNING if they are fine."""
    status = validity(problem)
    invalid = iteration.as_status(code(Status.INVALID_INPUT))
    return jnp.where(options.tolerance > 0, status, invalid)


def finished(given, f, g, error, status, counts, record=None) -> Outcome:
    """NaN where there is no answer; [] or, with f and g lanes last, [lanes]."""
    fine = given == code(Status.RUNNING)
    status = jnp.where(fine, status, given).astype(jnp.int32)
    bad = ~fine | (status == code(Status.NONFINITE))
    f, g = jnp.where(bad, jnp.nan, f), jnp.where(bad, jnp.nan, g)
    return Outcome(f, g, jnp.where(fine, error, jnp.nan), status, counts, record)


def explained(problem: Problem, f, g, status) -> jax.Array:
    """[] the status, or INFEASIBLE where that can be proved of a failed solve."""
    failed = (status == code(Status.MAX_STEPS)) | (status == code(Status.STALLED))
    proved = jax.lax.cond(
        failed,
        lambda: infeasible(problem, f, g),
        lambda: jnp.asarray(False),
    )
    return jnp.where(proved, code(Status.INFEASIBLE), status)
