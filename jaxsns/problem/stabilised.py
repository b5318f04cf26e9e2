"""The dual problem on a stabilised kernel: log scalings near 0 in place of potentials.

A kernel K is built from row potentials once. From there on a change of the potentials
costs products with K, and no exponential of a matrix.
Source: Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized
transport problems", SIAM J. Sci. Comput. 41 (2019).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry.kernel import Kernel
from jaxsns.numerics import finite_minus_inf, largest_scaling, machine_epsilon
from jaxsns.problem import marginal
from jaxsns.problem.marginal import MarginalConstraint
from jaxsns.problem.problem import Problem, has_gauge


class KernelProblem(NamedTuple):
    """What is constant while steps are made on one kernel.

    The plan is diag(exp(x)) K diag(exp(y)); the potentials are f = f0 + epsilon x and
    g = epsilon y - top.
    """

    kernel: Kernel
    f: jax.Array  # [n] f0, in units of cost, finite
    top: jax.Array  # [m] in units of cost
    epsilon: jax.Array  # []
    rows: MarginalConstraint  # what is asked of the rows, as a function of x
    columns: MarginalConstraint  # and of the columns, of y
    gauge: jax.Array  # [] bool: a constant may be added to x
    mass: jax.Array  # [] to which errors and rounding of gains are relative, at least

    def potentials(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) potentials of log scalings."""
        return self.f + self.epsilon * x, self.epsilon * y - self.top


class Iterate(NamedTuple):
    """Log scalings, and what the plan is there."""

    x: jax.Array  # [n]
    y: jax.Array  # [m]
    rows: jax.Array  # [n] row sums of the plan, in mass
    error: jax.Array  # [] relative L1 error of the marginals


def damped_step(
    constraint: MarginalConstraint, x: jax.Array, sums: jax.Array
) -> jax.Array:
    """[n] change of a log scaling x in a sweep, no longer than a kernel can take.

    Limited after the damping, which makes far more wanted, or far less, a small step;
    what is longer even so the next kernel makes.
    """
    limit = 2 * largest_scaling(x.dtype)
    return jnp.clip(constraint.tau * constraint.surplus(x, sums), -limit, limit)


def column_update(problem: KernelProblem, x: jax.Array) -> jax.Array:
    """[m] log scaling y that makes the column sums as they must be for a given x."""
    sums = problem.kernel.transpose_times(jnp.exp(x))
    return problem.columns.fit(jnp.log(sums))


def row_sums(problem: KernelProblem, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n] row sums of diag(exp(x)) K diag(exp(y))."""
    return jnp.exp(x) * problem.kernel.times(jnp.exp(y))


def relative(problem: KernelProblem, missing: jax.Array, x: jax.Array) -> jax.Array:
    """[] missing mass over the mass that the rows must have at x."""
    return missing / jnp.maximum(jnp.sum(problem.rows.at(x)), problem.mass)


def evaluate(problem: KernelProblem, x: jax.Array) -> Iterate:
    """Iterate of x with the columns that fit it: two products."""
    y = column_update(problem, x)
    rows = row_sums(problem, x, y)
    missing = jnp.sum(jnp.abs(rows - problem.rows.at(x)))
    return Iterate(x, y, rows, relative(problem, missing, x))


def semidual_gain(problem: KernelProblem, old: Iterate, new: Iterate) -> jax.Array:
    """[] increase of the dual over epsilon, in mass; columns of both must fit."""
    rows = problem.rows.gain(old.x, new.x)
    return rows + problem.columns.fitted_gain(old.y, new.y)


def least_mass(problem: Problem) -> jax.Array:
    """[] mass below which nothing is moved: rounding of what is given."""
    given = jnp.minimum(jnp.sum(problem.a), jnp.sum(problem.b))
    if problem.balanced:
        return given  # errors are relative to what is moved, and that is it
    return machine_epsilon(problem.dtype) * given


@jax.named_scope("stabilise")
def stabilise(problem: Problem, f: jax.Array) -> KernelProblem:
    """Build the kernel of row potentials f [n]. One pass."""
    f = jnp.where(problem.a > 0, f, finite_minus_inf(problem.dtype))
    kernel, top = problem.geometry.formed().absorb(f, problem.epsilon)
    return KernelProblem(
        kernel=kernel,
        f=f,
        top=top,
        epsilon=problem.epsilon,
        rows=marginal.constraint(problem.a, problem.rho_a, f, problem.epsilon),
        columns=marginal.constraint(problem.b, problem.rho_b, -top, problem.epsilon),
        gauge=has_gauge(problem),
        mass=least_mass(problem),
    )
