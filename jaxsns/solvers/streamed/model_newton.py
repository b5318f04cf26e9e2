"""Newton's method on the model of a plan that a pass over streamed costs has shown."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsns.geometry import Streamed, sharding
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.newton import newton_loop
from jaxsns.solvers.newton import step as newton_steps
from jaxsns.solvers.newton.newton_options import NewtonOptions
from jaxsns.streaming import plan_model
from jaxsns.streaming.clusters import ClusterLayout
from jaxsns.streaming.passes import PassResult
from jaxsns.streaming.plan_model import Pattern

SHARE = 0.05  # of the error, to which the model is solved
STEPS = 40  # of Newton's method on one model, at most
ROUNDS = 6  # times the model is moved to where the steps have come


@jax.named_scope("model")
def solve(
    problem: Problem,
    f: jax.Array,
    seen: PassResult,
    pattern: Pattern,
    shapes: tuple[ClusterLayout, ClusterLayout],
    target: jax.Array,
    counts: Counts,
) -> tuple[jax.Array, Counts]:
    """[n] f that solves the model around f, and the work it took."""
    geometry, epsilon = problem.geometry, problem.epsilon
    assert isinstance(geometry, Streamed)
    # Every device steps on the whole model: what it needs of the points it has.
    y = sharding.replicated(geometry.mesh, geometry.y)
    geometry = dataclasses.replace(geometry, y=y, mesh=None)
    kernel = plan_model.build(
        geometry,
        f,
        seen.g,
        epsilon,
        pattern,
        seen.rows,
        seen.columns,
        seen.flow,
        shapes,
    )
    options = NewtonOptions(linear_solver="cg", max_steps=STEPS)
    aim = jnp.maximum(SHARE * seen.error, 0.3 * target)
    zero = jnp.asarray(0, jnp.int32)

    def steps(s):
        """Step on the model until done, or until scalings are too large for it."""
        kernel, f, g, _, counts, number, rounds = s
        setting = newton_steps.Setting(
            kernel=kernel,
            rows=marginal.constraint(problem.a, problem.rho_a, f, epsilon),
            columns=marginal.constraint(problem.b, problem.rho_b, g, epsilon),
            gauge=has_gauge(problem),
            total=jnp.sum(marginal.target_mass(problem.a, problem.rho_a, f)),
            target=aim,
        )
        point = newton_steps.at(setting, jnp.zeros_like(f))
        end = newton_loop.on_kernel(
            options, setting, newton_steps.begin(options, point, number, counts)
        )
        x = jnp.where(problem.a > 0, end.point.x, 0)
        y = jnp.where(problem.b > 0, end.point.y, 0)
        f, g = f + epsilon * x, g + epsilon * y
        kernel = plan_model.recentred(kernel, geometry, f, g, epsilon, pattern, x, y)
        settled = (end.point.error <= aim) | (end.idle >= newton_loop.IDLE)
        return kernel, f, g, settled, end.counts, end.step, rounds + 1

    def going(s):
        *_, settled, _, number, rounds = s
        return ~settled & (number < STEPS) & (rounds < ROUNDS)

    start = kernel, f, seen.g, jnp.asarray(False), counts, zero, zero
    _, f, _, _, done, _, _ = jax.lax.while_loop(going, steps, start)
    # Sweeps and products on the model are counted as sparse steps.
    more = done.linear_steps - counts.linear_steps + done.sweeps - counts.sweeps
    counts = counts.plus(
        newton_steps=done.newton_steps - counts.newton_steps, sparse_steps=more
    )
    return f, counts
