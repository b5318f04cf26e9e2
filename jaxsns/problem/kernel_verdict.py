"""What products with a kernel may miss of the error of a plan, so that no pass is made.

A kernel repeats its own rounding errors, so its products do not show them, and what was
too small for it is missing. Of both a bound is known from vectors alone.
"""

import math

import jax
import jax.numpy as jnp

from jaxsns.numerics import lost_mass, machine_epsilon, smallest_normal
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem


def relative(problem: Problem, f: jax.Array, g: jax.Array, error: jax.Array):
    """[] error over what is wanted of the rows, as one over the lesser side."""
    if problem.balanced:
        return error
    a, b = (jnp.sum(mass) for mass in dual.target_masses(problem, f, g))
    return error * (a / jnp.minimum(a, b))


def missed(
    problem: Problem, absorbed: dual.KernelProblem, f: jax.Array, g: jax.Array
) -> jax.Array:
    """[] error, relative, that steps on a kernel cannot have seen at most: a `bound`.

    f [n], g [m]: potentials that they led to, finite where there is mass.
    """
    epsilon, top = problem.epsilon, jnp.abs(absorbed.top)
    x, y = (f - absorbed.f) / epsilon, (g + absorbed.top) / epsilon
    # Both are rounded when they are put together, and by each shift of the gauge.
    centred = dual.centre(problem, f, g)
    sizes = [jnp.abs(u) + 2 * jnp.abs(v) for u, v in zip((f, g), centred, strict=True)]
    a, b = absorbed.row_target, absorbed.column_target
    # What is wanted of a penalised marginal rounds with its potential.
    soft = [1.0 if t.kappa is None else 1 + t.kappa for t in (a, b)]
    masses, real = (a.at(x), b.at(y)), (a.real, b.real)
    scalings = [jnp.where(t, jnp.exp(z), 0) for t, z in zip(real, (x, y), strict=True)]
    rows = masses[0], x, scalings[0], soft[0] * sizes[0] / epsilon, soft[0]
    columns = masses[1], y, scalings[1], (soft[1] * sizes[1] + top) / epsilon, soft[1]
    return bound(rows, columns)


def bound(rows: tuple, columns: tuple) -> jax.Array:
    """[...] what rounding, and entries too small for a kernel, may add to an error.

    rows, columns: masses [..., n], the log scalings x of a kernel that has a maximum of
    1, exp(x) or 0 where there is no mass, sizes of all potentials that were rounded
    over epsilon, and how much more than the plan depends on x. What rounds is summed
    over the plan, to first order, once for its rows and once for its columns; in half
    units

        3 z + |top| / epsilon + 2 in entries of K, where z = -log K = x + y - log plan,
        |f| / epsilon + 2 |x| + 2 and the same of g and y in scalings.

    The mean of -log plan is an entropy, at most log n m. Masses are taken to be as
    wanted: where the error is far from the tolerance the bound may be.
    Each term of a sum may underflow as well, which counts where masses are tiny.
    """
    u, v = rows[2], columns[2]
    n, m = u.shape[-1], v.shape[-1]
    total = jnp.sum(rows[0], axis=-1)
    rounded = _side(*rows) + _side(*columns)
    rounded += 3 * (math.log(n * m) - jnp.log(total)) + 6
    under = m * (1 + jnp.sum(u, axis=-1)) + n * (1 + jnp.sum(v, axis=-1))
    lost = 2 * lost_mass(u, v) + smallest_normal(u.dtype) * under
    return machine_epsilon(u.dtype) * rounded + lost / total


def _side(mass: jax.Array, x: jax.Array, _, sizes: jax.Array, soft=1.0) -> jax.Array:
    return mean(mass, 3 * x + 2 * soft * jnp.abs(x)) + mean(mass, sizes)


def mean(mass: jax.Array, x: jax.Array) -> jax.Array:
    """[...] mean over masses [..., n] of what may be anything where there is none."""
    whole = jnp.sum(mass * jnp.where(mass > 0, x, 0), axis=-1)
    return whole / jnp.sum(mass, axis=-1)
