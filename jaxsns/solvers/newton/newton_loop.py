"""The loops of Newton's method on one kernel."""

import functools

import jax
import jax.numpy as jnp

from jaxsns.hessian import mixed_precision
from jaxsns.numerics import largest_scaling
from jaxsns.solvers.newton import direction
from jaxsns.solvers.newton import step as newton_steps
from jaxsns.solvers.newton.newton_options import NewtonOptions
from jaxsns.solvers.newton.step import FIRST_SWEEPS, Inner, Setting

IDLE = 4  # steps without progress after which a kernel is left
# Error, and size of x, after the first sweeps, up to which a path costs more; and where
# kernels serve a third as far, as in float32, or their passes cost little.
NEAR, NEARER = (0.7, 35.0), (0.25, 16.0)
FALLEN = 0.3  # of the error of a kernel: left when used up, where the next one begins
BEGUN, LITTLE = 0.38, 0.6  # in float32: error before the first sweep, and its share
FEW = 45  # sweeps left, as the last contracted, up to which steps at once cost less


def _more(options: NewtonOptions, setting: Setting, s: Inner) -> jax.Array:
    """[] bool: whether there is another step to be made on this kernel."""
    small = jnp.max(jnp.abs(s.point.x)) <= largest_scaling(s.point.x.dtype)
    more = (s.point.error > setting.target) & (s.step < options.max_steps)
    return more & small & (s.idle < IDLE)


def _asked(
    options: NewtonOptions, setting: Setting, start: Inner, s: Inner
) -> jax.Array:
    """[] bool: whether it matters now if there is a path, which costs looking.

    After first sweeps that promise no quick end, or where a kernel was of little use;
    of a first one in float32, which serves a third as far, less is asked near the end.
    """
    if setting.path is None or s.ratio is None:
        return jnp.asarray(False)
    left = jnp.log(setting.target / s.point.error) / jnp.log(s.contraction)
    x = s.point.x
    wide = x.dtype == jnp.float64 and x.shape[0] > direction.SMALL
    error, reach = NEAR if wide else NEARER
    near = (s.point.error <= error) & (jnp.max(jnp.abs(x)) <= reach)
    fast = near | ((s.contraction < 1) & (left <= FEW))
    slow = (s.step - start.step == FIRST_SWEEPS) & ~fast
    failed = ~_more(options, setting, s) & ~(s.point.error <= setting.target)
    failed = failed & (s.step < options.max_steps)
    fallen = s.point.error <= FALLEN * start.point.error
    if x.dtype == jnp.float32:
        near = (start.point.error <= BEGUN) & setting.whole
        fallen |= near & (s.point.error <= LITTLE * start.point.error)
    fallen = (s.idle < IDLE) & fallen
    failed = failed & ~fallen
    return setting.trying & jnp.isnan(s.ratio) & (slow | failed)


def on_kernel(options: NewtonOptions, setting: Setting, start: Inner) -> Inner:
    """Step until the target is met, the kernel used up, or nothing moves.

    One that is only tried is left for a path as soon as it is known that there is one.
    """
    asked = functools.partial(_asked, options, setting, start)

    def more(s: Inner) -> jax.Array:
        go_on = _more(options, setting, s)
        return go_on if s.ratio is None else go_on & ~(setting.trying & (s.ratio > 0))

    def run(going, s: Inner, setting=setting, sweeping=False) -> Inner:
        step = functools.partial(
            newton_steps.step_once,
            options,
            setting,
            start.step,
            going,
            sweeping=sweeping,
        )
        return jax.lax.while_loop(going, step, s)

    going = lambda s: more(s) & ~asked(s)
    conjugate = options.linear_solver in ("auto", "cg")
    n = start.point.x.shape[0]
    rough = conjugate and mixed_precision.pays(setting.kernel, n, direction.SMALL)

    def steps(s: Inner) -> Inner:
        """The float32 copy is made for the first direction, and anew when far off."""
        if not rough:
            return run(going, s)
        due = functools.partial(newton_steps.due, options, setting, start.step)
        s = run(lambda s: going(s) & ~due(s), s, sweeping=True)

        def with_copy(s: Inner) -> Inner:
            there = newton_steps.there(setting, s.point)
            copy = mixed_precision.copy(direction.system_of(there))
            limit, x = largest_scaling(jnp.dtype(jnp.float32)), s.point.x
            fits = lambda s: jnp.max(jnp.abs(s.point.x - x)) <= limit
            mine = setting._replace(rough=copy)
            return run(lambda s: going(s) & fits(s), s, mine)

        return jax.lax.while_loop(going, with_copy, s)

    path = setting.path
    if path is None or start.ratio is None:
        return steps(start)

    def both(s: Inner) -> Inner:
        s = steps(s)
        known = s.ratio
        return s._replace(ratio=jax.lax.cond(asked(s), path, lambda: known))

    return jax.lax.while_loop(more, both, start)
