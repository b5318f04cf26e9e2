"""How far to go along a Newton direction, and what that says about the damping.

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

from jaxsns import control

SHRINK, LONGER = 0.4, 2.0  # factors of the length from trial to trial [D09]
TRIALS = 6  # lengths that are tried for one direction, at most [D09]
WEAK, SHORT = 0.1, 1.1  # gain ratios below and above which there is another trial [D09]
ACCEPTED = 1e-4  # least gain ratio of a step that is made [D09]
# [D08]
POOR, GOOD = 0.25, 0.75  # gain ratios below and above which the damping is changed
LEAST_DAMPING, DAMPING_FACTOR = 0.01, 4.0  # [D08]


class Trial(NamedTuple):
    """A step of some length along a direction."""

    length: jax.Array  # []
    point: Any  # where it leads to
    gain: jax.Array  # [] -inf if it leads nowhere
    gain_ratio: jax.Array  # [] of the first one if it was made longer
    longer: jax.Array  # [] bool: whether a longer one is tried next


def gain_ratio(
    gain: jax.Array,
    promised: jax.Array,
    noise: jax.Array,
    errors: tuple[jax.Array, jax.Array],
    target: jax.Array,
) -> jax.Array:
    """[...] gain over what the model promised; `errors` before and after the step.

    Where the promise is below rounding (`noise`) the value says nothing; the error
    still does. For a step that meets the target the ratio is at most 1: slow modes may
    gain from a longer step, which would carry all others as far to the other side.
    """
    before, after = errors
    better = jnp.where(after < before, 1.0, -1.0).astype(gain.dtype)
    ratio = jnp.where(promised > noise, gain / promised, better)
    return jnp.where(after <= target, jnp.minimum(ratio, 1), ratio)


def updated_damping(
    damping: jax.Array, ratio: jax.Array, shortened: jax.Array | bool = False
) -> jax.Array:
    """[...] damping for the next step: less after a good one, more after a poor one."""
    harder = shortened | (ratio < POOR)
    lower = jnp.where(damping > LEAST_DAMPING, damping / DAMPING_FACTOR, 0)
    higher = jnp.maximum(DAMPING_FACTOR * damping, LEAST_DAMPING)
    easier = ~harder & (ratio > GOOD)
    return jnp.where(harder, higher, jnp.where(easier, lower, damping))


def search(
    attempt: Callable[[jax.Array], tuple[Any, jax.Array, jax.Array]],
    room: Callable[[jax.Array], jax.Array],
    length: jax.Array,
    point: Any,
    due: jax.Array | bool = True,
) -> Trial:
    """Best of up to six trials: of the given length, then all shorter or all longer.

    Args:
      attempt: of a length, gives the point there, its gain (-inf if there is none),
        and the gain ratio.
      room: of a length, [] bool whether it is permitted.
      length: [] of the first trial.
      point: where the search begins; it only gives the shapes.
      due: [] bool whether a trial is wanted at all.

    Returns:
      The last trial that was not refused; its ratio is below `WEAK` if none was good.
    """

    def going(trials) -> jax.Array:
        number, last = trials
        more = (last.gain_ratio < WEAK) | last.longer
        return due & ((number == 0) | (more & (number < TRIALS)))

    def again(trials):
        number, last = trials
        first = number == 0
        factor = jnp.where(last.longer, LONGER, jnp.where(first, 1.0, SHRINK))
        tried = factor.astype(length.dtype) * last.length
        new_point, gain, ratio = attempt(tried)
        onward = jnp.where(first, ratio > SHORT, last.longer) & room(LONGER * tried)
        ratio = jnp.where(last.longer, last.gain_ratio, ratio)
        new = Trial(tried, new_point, gain, ratio, onward)
        old = last._replace(longer=jnp.asarray(False))
        # A longer step is kept only if it gains more; a shorter one always.
        better = ~last.longer | (gain > last.gain)
        return number + 1, jax.tree.map(lambda u, v: jnp.where(better, u, v), new, old)

    nothing = jnp.full_like(length, -jnp.inf)
    start = Trial(length, point, nothing, nothing, jnp.asarray(False))
    return control.while_loop(going, again, (jnp.asarray(0, jnp.int32), start))[1]
