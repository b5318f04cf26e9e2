"""One pass over a streamed problem: what its plan is at given row potentials."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Streamed, sharding
from jaxsns.numerics import finite_minus_inf, safe_log
from jaxsns.problem import dual, marginal
from jaxsns.problem.problem import Problem
from jaxsns.streaming.clusters import ClusterLayout


class PassResult(NamedTuple):
    """What a pass at row potentials shows; the columns are as wanted."""

    g: jax.Array  # [m] cost, finite
    rows: jax.Array  # [n] sums of the plan
    columns: jax.Array  # [m]
    flow: jax.Array  # [clusters of rows, clusters of columns] mass
    error: jax.Array  # [] relative L1 error of the rows
    value: jax.Array  # [] the dual, in cost times mass


@jax.named_scope("pass")
def semidual_pass(
    problem: Problem, f: jax.Array, shapes: tuple[ClusterLayout, ClusterLayout]
) -> PassResult:
    """One pass at f [n], finite; columns come in clusters."""
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    x, y = shapes
    n = f.shape[0]

    def block(z, given, epsilon):
        b, rho = given
        top = jnp.max(z, axis=1)
        plan = jnp.exp(z - top[:, None])
        sums = jnp.sum(plan, axis=1)
        soft = -epsilon * (top + jnp.log(sums))
        log_b = safe_log(b)
        log_w = log_b - jnp.log(sums)
        if rho is not None:
            damping = epsilon / (rho + epsilon)
            log_w -= damping * (jnp.where(b > 0, log_b, 0) + soft / epsilon)
        weight = jnp.where(b > 0, jnp.exp(log_w), 0)
        plan = plan * weight[:, None]
        by_part = jnp.sum(plan.reshape(-1, y.part, n), axis=1)
        flow = jnp.sum(by_part.reshape(by_part.shape[0], -1, x.size), axis=2)
        g = marginal.fitted_potential(b, rho, soft, epsilon)
        return jnp.sum(by_part, axis=0), (g, weight * sums, flow)

    inputs = (problem.b, problem.rho_b)
    rows, out = geometry.columns(block, f, epsilon, inputs, epsilon, multiple=y.part)
    g, columns, flow = sharding.replicated(geometry.mesh, out)
    flow = jnp.sum(flow.reshape(-1, y.size // y.part, flow.shape[1]), axis=1)
    wanted = marginal.target_mass(problem.a, problem.rho_a, f)
    total = dual.judged_total(problem, jnp.sum(wanted))
    error = jnp.sum(jnp.abs(rows - wanted)) / total
    value = dual.linear_part(problem, f, g) - epsilon * jnp.sum(rows)
    g = jnp.where(problem.b > 0, g, finite_minus_inf(f.dtype))
    return PassResult(g, rows, columns, flow.T, error, value)
