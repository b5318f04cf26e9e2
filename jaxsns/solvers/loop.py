"""The one outer loop, and the status at a point whose error is known."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.status import Status, code


class HasStatus(Protocol):
    """Any state that can go through the loop."""

    @property
    def status(self) -> jax.Array:
        """[] int32."""
        ...


S = TypeVar("S", bound=HasStatus)


def run(update: Callable[[S], S], state: S) -> S:
    """Apply `update` while the status is RUNNING. The only outer loop there is."""
    return control.while_loop(lambda s: s.status == code(Status.RUNNING), update, state)


def as_status(value: ArrayLike) -> jax.Array:
    """Status as it is carried: [] int32."""
    return jnp.asarray(value, jnp.int32)


def status_at(
    error: jax.Array,
    tolerance: ArrayLike,
    step: jax.Array,
    max_steps: jax.Array | int,
    stalled: jax.Array,
) -> jax.Array:
    """[...] status at a point whose error is known, tested in order of meaning.

    CONVERGED counts before the limits: a solve that is right at its last permitted
    step has not failed.
    """
    status = jnp.where(step >= max_steps, code(Status.MAX_STEPS), code(Status.RUNNING))
    status = jnp.where(stalled, code(Status.STALLED), status)
    status = jnp.where(error <= tolerance, code(Status.CONVERGED), status)
    return as_status(jnp.where(jnp.isfinite(error), status, code(Status.NONFINITE)))
