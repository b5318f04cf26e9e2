"""The constant that may be added to f and taken from g: where it is free, and which.

If all marginals must be met exactly, adding t to f and taking it from g changes no plan
(the gauge). If one is penalised, there is a best constant instead.
"""

import jax
import jax.numpy as jnp

from jaxsns.numerics import derivative_only
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge


def weighted(masses: jax.Array, potential: jax.Array) -> jax.Array:
    """[] sum of mass times potential, where 0 * -inf is 0."""
    return jnp.sum(masses * jnp.where(masses > 0, potential, 0))


def gauge_shift(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] what `centre` takes from f and adds to g."""
    surplus = weighted(problem.a, f) - weighted(problem.b, g)
    shift = surplus / (jnp.sum(problem.a) + jnp.sum(problem.b))
    if not problem.balanced:
        shift = jnp.where(has_gauge(problem), shift, 0)
    return shift


def centre(problem: Problem, f: jax.Array, g: jax.Array):
    """Fix the gauge, if there is one: <a, f> = <b, g>, each half of their sum.

    The same for n < m and n > m, and blind to atoms without mass. A shift is no more
    exact than what it takes away, so it is applied twice [D14].
    """
    for _ in range(2):
        shift = gauge_shift(problem, f, g)
        f, g = f - shift, g + shift
    return f, g


def with_gauge(problem: Problem, f: jax.Array, g: jax.Array):
    """Centred potentials as they are, with the derivative that `centre` has.

    Potentials that were checked must not be shifted once more: the shift is rounding
    only, but it rounds them anew, by up to 1e-7 |f| / epsilon in float32.
    """
    none = derivative_only(gauge_shift(problem, f, g))
    return f - none, g + none


def with_best_translation(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n] f with the constant that suits the penalties best; as it is without any.

    Large penalties nearly leave the gauge free: steps on kernels would find the
    constant only in as many of them as it is long.
    """
    if problem.balanced:
        return f
    rows = marginal.constraint(problem.a, problem.rho_a, f, problem.epsilon)
    columns = marginal.constraint(problem.b, problem.rho_b, g, problem.epsilon)
    t = marginal.translation(rows, columns, jnp.zeros_like(f), jnp.zeros_like(g))
    return jnp.where(problem.a > 0, f + problem.epsilon * t, f)
