"""A Newton step on the exact matrix of a streamed plan, a pass for each product."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns.geometry import Streamed
from jaxsns.hessian import schur
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.streaming.passes import PassResult

RESIDUAL = 0.01  # of the right side, to which a step is solved [D24]
PRODUCTS = 300  # passes that a step may take [D24]


class Step(NamedTuple):
    """Where a step leads, and what it took."""

    f: jax.Array  # [n] cost
    products: jax.Array  # [] int32


@jax.named_scope("exact_step")
def step(problem: Problem, f: jax.Array, seen: PassResult, asked: jax.Array) -> Step:
    """Newton's step from sorted, finite row potentials f [n] that a pass has seen.

    asked: [] bool; without it there are no products, as for a batch element under
    `vmap` that is here because another one asked.
    """
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    wanted = marginal.target_mass(problem.a, problem.rho_a, f)
    stiff = marginal.stiffness(wanted, problem.rho_a, epsilon)
    rows = seen.rows + stiff
    # The columns of a pass are as wanted.
    columns = seen.columns + marginal.stiffness(seen.columns, problem.rho_b, epsilon)
    ones = jnp.ones_like(rows), jnp.ones_like(columns)
    zero = jnp.zeros((), f.dtype)
    kernel = geometry.kernel(f, seen.g, epsilon)
    system = schur.make_system(kernel, *ones, rows, columns, zero, has_gauge(problem))
    rhs = schur.project(system, system.left * (wanted - seen.rows))
    end = schur.solve_cg(system, rhs, RESIDUAL, jnp.where(asked, PRODUCTS, 0))
    return Step(f + epsilon * system.left * end.x, end.steps)
