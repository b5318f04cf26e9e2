"""The dual of quadratically regularised transport: slack, plan, value, errors.

    maximise  <a, f> + <b, g> - sum_ij [f_i + g_j - C_ij]_+^2 / (2 gamma)

The plan is [f + g - C]_+ / gamma, so it is zero where f + g <= C. The gradient is
(a - P 1, b - P^T 1), and almost everywhere the Hessian is -[[R, S], [S^T, T]] / gamma:
S is 1 on the support and 0 elsewhere, R and T hold its row and column sums. A penalised
marginal has a concave function in place of <a, f> (see `problem.marginal`).

`problem.epsilon` is gamma. Sources: Blondel, Seguy, Rolet (AISTATS 2018); Lorenz,
Manns, Meyer, "Quadratically regularized optimal transport" (2021).
"""

import jax
import jax.numpy as jnp

from jaxsns.numerics import dual_slack, machine_epsilon, smallest_normal
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem

ROUNDING = 4.0  # machine epsilons in which a slack is known, over its potentials [D62]


def slack(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] f + g - C, far below zero at atoms without mass and forbidden pairs."""
    f, g = dual.finite(problem, f, g)
    return dual_slack(f[:, None], g[None, :], problem.geometry.dense().entries)


def plan(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] plan in mass, with exact zeros."""
    return jnp.maximum(slack(problem, f, g), 0) / problem.epsilon


def support(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[n, m] 1 where the plan has mass, 0 elsewhere."""
    return (slack(problem, f, g) > 0).astype(f.dtype)


def marginals(problem: Problem, f: jax.Array, g: jax.Array):
    """([n], [m]) row and column sums of the plan."""
    mass = plan(problem, f, g)
    return jnp.sum(mass, axis=1), jnp.sum(mass, axis=0)


def value(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] dual objective, in cost times mass; at most the primal optimum."""
    mass = plan(problem, f, g)
    return dual.linear_part(problem, f, g) - problem.epsilon / 2 * jnp.sum(mass**2)


def relative_error(problem: Problem, f, g, rows: jax.Array, columns: jax.Array):
    """[] L1 error of both marginals over the mass to be moved."""
    a, b = dual.target_masses(problem, f, g)
    total = jnp.maximum(
        jnp.minimum(jnp.sum(a), jnp.sum(b)),
        machine_epsilon(a.dtype) * jnp.minimum(jnp.sum(problem.a), jnp.sum(problem.b)),
    )
    missed = jnp.sum(jnp.abs(rows - a)) + jnp.sum(jnp.abs(columns - b))
    return missed / jnp.maximum(total, smallest_normal(total.dtype))


def rounding_error(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] error that rounding of the potentials may make.

    Each entry of the support is known to the rounding of its potentials over gamma.
    """
    size = lambda mass, x: jnp.max(jnp.where(mass > 0, jnp.abs(x), 0))
    scale = jnp.maximum(size(problem.a, f), size(problem.b, g)) / problem.epsilon
    entries = jnp.sum(support(problem, f, g))
    unit = ROUNDING * machine_epsilon(f.dtype)
    return unit * (1 + entries * scale / jnp.sum(problem.a))
