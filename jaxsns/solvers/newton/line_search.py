"""How far to go along a Newton direction.

A step that does not gain what it should is made shorter; one that gains more than the
model promises is made longer, while that gains more. The latter is for plans that
nearly split: where a block of atoms holds too much for its links to the others, the
gain is that of t - exp(t), each Newton step takes one e-fold off, and gains 1.26 times
what its model says.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

SHRINK, LONGER = 0.4, 2.0
TRIALS = 6
WEAK, SHORT = 0.1, 1.1  # gain over promise, beyond which there is another trial


class Trial(NamedTuple):
    """A step of some length along a direction."""

    length: jax.Array  # []
    point: Any  # where it leads to
    gain: jax.Array  # [] -inf if it leads nowhere
    rho: jax.Array  # [] gain over promise, of the first one if it was made longer
    longer: jax.Array  # [] bool: whether a longer one is tried next


def ratio(
    gain: jax.Array,
    promised: jax.Array,
    noise: jax.Array,
    errors: tuple[jax.Array, jax.Array],
    target: jax.Array,
) -> jax.Array:
    """[] gain over what the model promised; `errors` before and after.

    Where the promise drowns in rounding the value says nothing; the error still does.
    One that ends it is good enough: slow modes may gain from a longer step, by which
    all others would be as far off on the other side.
    """
    before, after = errors
    better = jnp.where(after < before, 1.0, -1.0).astype(gain.dtype)
    rho = jnp.where(promised > noise, gain / promised, better)
    return jnp.where(after <= target, jnp.minimum(rho, 1), rho)


def search(
    attempt: Callable[[jax.Array], tuple[Any, jax.Array, jax.Array]],
    room: Callable[[jax.Array], jax.Array],
    length: jax.Array,
) -> Trial:
    """Best of up to six trials: of the given length, then all shorter or all longer.

    Args:
      attempt: of a length, gives the point there, its gain (-inf if there is none),
        and that over the promised one.
      room: of a length, [] bool whether it is permitted.
      length: [] of the first trial.

    Returns:
      The last one that was not refused; `rho` below `WEAK` if none was good.
    """

    def first() -> Trial:
        point, gain, rho = attempt(length)
        return Trial(length, point, gain, rho, (rho > SHORT) & room(LONGER * length))

    def going(trials) -> jax.Array:
        number, last = trials
        return ((last.rho < WEAK) | last.longer) & (number < TRIALS)

    def again(trials):
        number, last = trials
        factor = jnp.where(last.longer, LONGER, SHRINK).astype(length.dtype)
        point, gain, rho = attempt(factor * last.length)
        onward = last.longer & room(LONGER * factor * last.length)
        rho = jnp.where(last.longer, last.rho, rho)
        new = Trial(factor * last.length, point, gain, rho, onward)
        old = last._replace(longer=jnp.asarray(False))
        better = ~last.longer | (gain > last.gain)
        return number + 1, jax.tree.map(lambda u, v: jnp.where(better, u, v), new, old)

    return jax.lax.while_loop(going, again, (jnp.asarray(1, jnp.int32), first()))[1]
