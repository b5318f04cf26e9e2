"""`solve_penalised`: check the input, iterate, attach the derivative."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.geometry import CostLike, Dense
from jaxsns.geometry.learnable import of_plan
from jaxsns.outer import derivative, iteration
from jaxsns.outer.iteration import Options, State, as_options
from jaxsns.penalised import form
from jaxsns.penalised.form import Terms
from jaxsns.penalised.solution import PenalisedSolution
from jaxsns.problem.checks import validity
from jaxsns.problem.inputs import make_problem
from jaxsns.problem.offsets import Offsets, Reduced, reduce
from jaxsns.solvers import registry
from jaxsns.solvers.options import Options as Method

# Linear problems are solved to the end: strong penalties need short steps, and whether
# one lowers the objective must be seen [D41].
EXACT = 0.0


@functools.partial(jax.jit, static_argnums=2)
def _iterated(terms: Terms, options: Options, method: Any) -> State:
    """Where the iteration ends that starts from the product of the masses."""
    given = terms.masses
    share = given.b / jnp.sum(given.b)
    product = given.a[:, None] * share[None, :]
    start = jax.grad(terms.penalty)(product)
    zero = jnp.zeros_like(given.a), jnp.zeros_like(given.b)
    valid = validity(given)
    end = iteration.run(form, terms, start, zero, options, method, valid)
    end = end._replace(plan=None, next=None, trial=None, window=None)
    return iteration.answered(end)


@functools.partial(jax.jit, static_argnums=4)
def _attached(
    terms: Terms,
    end: State,
    offsets: Offsets | None,
    tolerance: jax.Array,
    method: str,
) -> PenalisedSolution:
    """Attach the derivatives, and give back what the costs lost."""
    linear, _, value = derivative.attached(form, terms, end, tolerance, method)
    penalty = terms.penalty(linear.plan())
    if offsets is not None:
        core = Reduced(linear.problem, linear.f, linear.g, offsets)
        cost = linear.problem.geometry.dense().cost
        cost = cost + offsets.rows[:, None] + offsets.columns[None, :]
        problem = dataclasses.replace(linear.problem, geometry=Dense(cost))
        f, g = offsets.given_back(problem, linear.f, linear.g)
        linear = dataclasses.replace(linear, problem=problem, f=f, g=g, reduced=core)
        value = value + offsets.value(problem.a, problem.b)
    return PenalisedSolution(linear, value, penalty, end.change, end.status, end.steps)


@hints.answered
def solve_penalised(
    cost: CostLike,
    penalty: Callable[[jax.Array], jax.Array],
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike | None = None,
    relative_to: str | None = None,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    inner_tolerance: ArrayLike | None = None,
    max_steps: ArrayLike | None = None,
    method: str | Method = "auto",
) -> PenalisedSolution:
    """Solve entropic transport with a convex penalty on the plan.

        minimise <C, P> + penalty(P) + epsilon sum P (log P - 1)
        over P >= 0 with P 1 = a and P^T 1 = b

    Args:
      cost: [n, m] costs, +inf where a pair is forbidden, or a geometry; its matrix is
        formed.
      penalty: maps a plan [n, m] to a number [] in cost times mass: convex and
        differentiable where P > 0. One of `jaxsns.penalties`, or any function; arrays
        that it reads are data. For one that is not convex, the end is a stationary
        point.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0 with the same total unless relaxed; uniform if None.
      epsilon: [] regularisation > 0, in units of cost; None: as in `solve`.
      relative_to: epsilon is a multiple of a scale of the costs, as in `solve`.
      rho_a: [] weight of the penalty KL(P 1 | a) that replaces equality, as in `solve`.
      rho_b: [] the same for the columns.
      tolerance: [] L1 change of the plan by a step, relative to the mass, at which to
        stop; None: 1e-7 in float64, 1e-3 in float32.
      inner_tolerance: [] marginal error of the plan; None: 1e-10, or 2e-5.
      max_steps: [] limit of linear problems; None: 1000.
      method: that of the linear problems, as in `solve`.

    Returns:
      The `PenalisedSolution`; look at `.converged`. Its value, plan, potentials and
      projections can be differentiated with respect to costs, masses, epsilon, rho and
      what the penalty reads, in forward and reverse mode: the minimum is, not the loop.

    Raises:
      TypeError, ValueError: as `solve`; a penalty that does not map a plan to a number.

    Status: CONVERGED; MAX_STEPS or STALLED with the plan that was reached. STALLED is
      likely where the penalty is many times epsilon and has kinks. NONFINITE, with
      NaN, where the penalty or its gradient is not finite; for bad traced values as
      `solve`.
    Cost: a linear problem a step, started from the potentials before it. Two plans and
      some ten directions [n, m] in memory.
    Source: generalised conditional gradient, Rakotomamonjy, Flamary, Courty (2015);
      POT has it as `ot.optim.gcg`. docs/adaptation.md.

    Example:
      >>> penalty = jaxsns.penalties.GroupLasso(labels, classes=10, weight=0.1)
      >>> solution = jaxsns.solve_penalised(cost, penalty, epsilon=0.05)
    """
    problem = make_problem(
        cost,
        a,
        b,
        epsilon=epsilon,
        relative_to=relative_to,
        rho_a=rho_a,
        rho_b=rho_b,
    )
    # Offsets change no plan, and would take the digits of what epsilon is beside.
    problem, offsets = reduce(problem) or (problem, None)
    problem = problem.dense()
    if offsets is not None:
        less = Dense(problem.geometry.dense().entries)
        problem = dataclasses.replace(problem, geometry=less)
    dtype = problem.dtype
    function = of_plan("penalty", penalty, problem.shape, dtype)
    terms = Terms(problem, function)
    options = as_options(dtype, tolerance, inner_tolerance, max_steps, EXACT)
    control.refuse_divided_lanes("solve_penalised", terms)
    given = jax.lax.stop_gradient((terms, options))
    end = _iterated(*given, method)
    name = registry.find(method)[0]
    return _attached(terms, end, offsets, options.inner_tolerance, name)
