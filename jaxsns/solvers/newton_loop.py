"""The loops of Newton's method on one kernel: first sweeps, then steps of each kind."""

import functools

import jax
import jax.numpy as jnp

from jaxsns.numerics import largest_scaling
from jaxsns.solvers import direction, factored, newton_steps
from jaxsns.solvers.newton_options import NewtonOptions
from jaxsns.solvers.newton_steps import Inner, Setting

FIRST_SWEEPS = 3  # before the first Newton step on a new kernel
IDLE = 4  # steps without progress after which a kernel is left
FAST = 0.7  # contraction of the last of the first sweeps, up to which a path costs more


def _more(options: NewtonOptions, setting: Setting, s: Inner) -> jax.Array:
    """[] bool: whether there is another step to be made on this kernel."""
    small = jnp.max(jnp.abs(s.point.x)) <= largest_scaling(s.point.x.dtype)
    more = (s.point.error > setting.target) & (s.step < options.max_steps)
    return more & small & (s.idle < IDLE)


def _first_sweeps(options: NewtonOptions, setting: Setting, start: Inner) -> Inner:
    def going(s: Inner) -> jax.Array:
        return _more(options, setting, s) & (s.step - start.step < FIRST_SWEEPS)

    def sweep(s: Inner) -> Inner:
        none = newton_steps.no_direction(s)
        return newton_steps.swept(setting, going, s, s, none)

    return jax.lax.while_loop(going, sweep, start)


def _leaves(setting: Setting, more: jax.Array, s: Inner) -> tuple[Inner, jax.Array]:
    """Whether to leave the kernel for a path, after the first sweeps.

    Whether there is a path costs two looks at the costs, and is asked here only.
    """
    if setting.path is None or s.ratio is None:
        return s, jnp.asarray(False)
    asked = setting.trying & more & (s.contraction > FAST)
    ratio = jax.lax.cond(asked, setting.path, lambda: s.ratio)
    return s._replace(ratio=ratio), asked & (ratio > 0)


def on_kernel(options: NewtonOptions, setting: Setting, start: Inner) -> Inner:
    """Step until the target is met, the kernel used up, or nothing moves."""
    start = _first_sweeps(options, setting, start)
    start, left = _leaves(setting, _more(options, setting, start), start)
    more = lambda s: _more(options, setting, s) & ~left

    def run(going, factor: jax.Array | None, s: Inner) -> Inner:
        step = functools.partial(
            newton_steps.step_once, options, setting, going, factor
        )
        return jax.lax.while_loop(going, step, s)

    # Loops of their own: carried through one, a factor would be copied each step.
    without = lambda s: more(s) & (s.way.kind < direction.WANTED)
    useful = lambda s: more(s) & (s.way.kind > direction.WANTED)
    if not direction.may_factorise(options.linear_solver, start.point.x.shape[0]):
        return run(without, None, start)

    def phase(s: Inner) -> Inner:
        """From where a factor is wanted up to where it does not do any more."""
        factor = factored.factor_at(*newton_steps.equations(setting, s))
        return run(useful, factor, s._replace(way=factored.with_factor(s.way)))

    def both(s: Inner) -> Inner:
        s = run(without, None, s)
        return jax.lax.cond(more(s), phase, lambda s: s, s)

    return jax.lax.while_loop(more, both, start)
