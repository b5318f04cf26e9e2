"""`check`: a failed solve as an error under `jit`, through `checkify`."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from jaxsns.status import Status, code, describe

S = TypeVar("S")
MEASURES = ("error", "gap", "change")  # of solutions, exact ones, barycentres of spaces


def _parts(solution: Any) -> list[Any]:
    parts = [getattr(solution, name, None) for name in ("ab", "aa", "bb")]
    return [solution] if parts[0] is None else parts


def _measure(part: Any) -> tuple[str, jax.Array]:
    """What says how far off a result is: its name and value, NaN if there is none."""
    for name in MEASURES:
        value = getattr(part, name, None)
        if isinstance(value, jax.Array):
            return name, jnp.max(value)
    return "error", jnp.asarray(jnp.nan)


def check(solution: S) -> S:
    """Return the solution; where `checkify` looks on, a failure becomes an error.

    To be called in a function that `jax.experimental.checkify.checkify` transforms,
    under `jit` or not:

        error, value = jax.jit(checkify.checkify(lambda c: check(solve(c)).value))(c)
        error.throw()

    Args:
      solution: what `solve` or one of its relatives returned: all that has a status,
        exact and sparse transport, Gromov-Wasserstein and barycentres included.

    Returns:
      The same; use the returned one, so that the call reads as what it is.

    Raises:
      TypeError: not a solution. `jax.experimental.checkify.JaxRuntimeError` with the
        text of the status, from `error.throw()`, or at once outside `jit`. Under
        `jit` without `checkify` JAX refuses to compile it (ValueError).

    A batch: `vmap` of the checkified function, which names the lane. JAX cannot
    checkify what contains a batched loop, so not the other way round.
    Cost: none beside the solve.
    """
    for part in _parts(solution):
        status = getattr(part, "status", None)
        if not isinstance(status, jax.Array):
            raise TypeError(
                "check takes what solve and its relatives return; "
                f"got {type(solution).__name__}"
            )
        name, off = _measure(part)
        for bad in Status:
            if bad != Status.CONVERGED:
                checkify.check(
                    jnp.all(status != code(bad)),
                    describe(bad) + f" ({name} {{off:.2e}})",
                    off=off,
                )
    return solution
