"""Newton's method on the model of a plan that a pass over streamed costs has shown."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Streamed, sharding
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.problem.stabilised import KernelProblem, least_mass
from jaxsns.recording.counts import Counts
from jaxsns.solvers import kernel_loop
from jaxsns.solvers.newton import newton
from jaxsns.streaming import plan_model
from jaxsns.streaming.clusters import ClusterLayout
from jaxsns.streaming.passes import PassResult
from jaxsns.streaming.plan_model import Pattern

SHARE = 0.05  # of the error, to which the model is solved [D23]
STEPS = 40  # of Newton's method on one model, at most [D23]
ROUNDS = 6  # times the model is moved to where the steps have come [D23]


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
    method = newton.method("cg")
    aim = jnp.maximum(SHARE * seen.error, 0.3 * target)
    zero = jnp.asarray(0, jnp.int32)
    limits = kernel_loop.Limits(
        target=aim,
        max_steps=jnp.asarray(STEPS, jnp.int32),
        patience=jnp.zeros_like(aim),
        may_give_up=jnp.asarray(False),
    )

    def steps(s):
        """Step on the model until done, or until scalings are too large for it."""
        kernel, f, g, _, counts, number, rounds = s
        here = KernelProblem(
            kernel=kernel,
            f=f,
            top=-g,
            epsilon=epsilon,
            rows=marginal.constraint(problem.a, problem.rho_a, f, epsilon),
            columns=marginal.constraint(problem.b, problem.rho_b, g, epsilon),
            gauge=has_gauge(problem),
            mass=least_mass(problem),
        )
        begun = kernel_loop.begin(
            newton.start(problem, here), newton.memory(f.dtype, None), number, counts
        )
        end = kernel_loop.on_kernel(method, here, limits, begun)
        x = jnp.where(problem.a > 0, end.iterate.x, 0)
        y = jnp.where(problem.b > 0, end.iterate.y, 0)
        f, g = f + epsilon * x, g + epsilon * y
        kernel = plan_model.recentred(kernel, geometry, f, g, epsilon, pattern, x, y)
        settled = (end.iterate.error <= aim) | (end.idle >= newton.IDLE_STEPS)
        return kernel, f, g, settled, end.counts, end.step, rounds + 1

    def going(s):
        *_, settled, _, number, rounds = s
        return ~settled & (number < STEPS) & (rounds < ROUNDS)

    start = kernel, f, seen.g, jnp.asarray(False), counts, zero, zero
    _, f, _, _, done, _, _ = control.while_loop(going, steps, start)
    # Sweeps and products on the model are counted as sparse steps.
    more = done.linear_steps - counts.linear_steps + done.sweeps - counts.sweeps
    counts = counts.plus(
        newton_steps=done.newton_steps - counts.newton_steps, sparse_steps=more
    )
    return f, counts
