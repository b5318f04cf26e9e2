"""`solve_sparse`: check the input, iterate, attach the derivative."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, Dense
from jaxsns.numerics import default_tolerance
from jaxsns.problem import arguments, gauge
from jaxsns.problem.inputs import as_float, as_positive, make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solvers.batched import vmap
from jaxsns.solvers.outcome import explain_failure, input_status
from jaxsns.sparse import derivative, dual, newton
from jaxsns.sparse.solution import SparseSolution
from jaxsns.status import Status, code

MAX_STEPS = 500  # Newton steps [D62]
NAMES = {
    "reg": "gamma, in units of cost over mass",
    "epsilon": "gamma, in units of cost over mass; entropy is that of solve",
    "reg_type": "no argument: the penalty is gamma/2 sum P^2, reg_type='l2'",
}


def _iterate(problem: Problem, init, options: newton.Options, given: jax.Array):
    """(f [n], g [m], error, tolerance, status, steps); NaN if there is no answer."""
    n, m = problem.shape
    if n > m:  # The system of a step is as large as the rows.
        swapped = None if init is None else init[::-1]
        g, f, *rest = _iterate(problem.transposed(), swapped, options, given)
        return f, g, *rest
    valid = input_status(problem, options)
    end = newton.iterate(problem, init, options, valid)
    status = explain_failure(problem, end.f, end.g, end.status)
    f, g = gauge.centre(problem, end.f, end.g)
    f = jnp.where(problem.a > 0, f, -jnp.inf)
    g = jnp.where(problem.b > 0, g, -jnp.inf)
    error = dual.relative_error(problem, f, g, *dual.marginals(problem, f, g))
    # Without a tolerance the default is raised to what rounding explains.
    floor = jnp.where(given, 0, dual.rounding_error(problem, f, g))
    tolerance = jnp.maximum(options.tolerance, floor)
    ended = (status == code(Status.MAX_STEPS)) | (status == code(Status.STALLED))
    ended |= status == code(Status.CONVERGED)
    good = ended & (error <= tolerance) & (end.gamma <= problem.epsilon)
    lost = (status == code(Status.CONVERGED)) & ~good
    status = jnp.where(good, code(Status.CONVERGED), status)
    status = jnp.where(lost, code(Status.STALLED), status).astype(jnp.int32)
    kept = ended | (status == code(Status.INFEASIBLE))
    nothing = lambda x: jnp.where(kept, x, jnp.nan)
    return nothing(f), nothing(g), nothing(error), tolerance, status, end.step


# As a rule of batching: JAX's own fails for lanes along Explicit axes. On a CPU
# problems then follow one another, which takes 0.8 to 1.2 times as long [D62].
_run = jax.jit(vmap.batched(_iterate, None))


@jax.jit
def _attached(problem: Problem, f: jax.Array, g: jax.Array):
    return gauge.with_gauge(problem, *derivative.attach(problem, f, g))


def _initial(init: Any, problem: Problem):
    if init is None:
        return None
    if not isinstance(init, tuple | list) or len(init) != 2:
        raise TypeError(f"init must be a pair (f, g); got {type(init).__name__}")
    out = []
    for name, value, size in zip("fg", init, problem.shape, strict=True):
        x = as_float(f"{name} of init", value).astype(problem.dtype)
        if x.shape != (size,):
            raise ValueError(f"{name} of init must have shape [{size}]; got {x.shape}")
        out.append(x)
    return tuple(out)


@functools.partial(hints.answered, more=NAMES)
def solve_sparse(
    cost: CostLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    gamma: ArrayLike,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    max_steps: ArrayLike = MAX_STEPS,
) -> SparseSolution:
    """Solve transport with a quadratic penalty: the plan is sparse.

        minimise <C, P> + gamma/2 sum P^2  over P >= 0, P 1 = a, P^T 1 = b

    or, where rho_a or rho_b is given, with penalties rho_a KL(P 1 | a) and
    rho_b KL(P^T 1 | b) in place of equality. The plan is [f + g - C]_+ / gamma: most
    entries are exactly zero. (`solve_quadratic` is something else: Gromov-Wasserstein.)

    Args:
      cost: [n, m] costs in any unit, +inf where a pair is forbidden, or a geometry; its
        matrix is formed.
      a: [n] row masses >= 0; uniform with total 1 if None.
      b: [m] column masses >= 0 with the same total; uniform if None.
      gamma: [] regularisation > 0, in units of cost over mass. A larger one spreads the
        plan over more entries: about where a row spreads over k columns, gamma is k / 2
        times the differences of their costs, over the mass of the row.
      rho_a: [] or [n] weight > 0 of the penalty of the rows, in units of cost; None or
        infinite: equality.
      rho_b: [] or [m] the same for the columns.
      tolerance: [] L1 error of both marginals together over the mass to be moved; None:
        1e-10 in float64, 2e-5 in float32, or what rounding explains if that is more.
      init: (f [n], g [m]) potentials to start from, of a similar problem; None: a path
        of decreasing gamma.
      max_steps: [] limit of Newton steps.

    Returns:
      The `SparseSolution`; look at `.converged`. Potentials, plan, value and so on can
      be differentiated with respect to costs or points, a, b, gamma and rho, in forward
      and reverse mode. The plan is piecewise smooth: where an entry enters or leaves
      the support, the derivative is that of one side. Where the support splits into
      blocks that do not share atoms, derivatives in the masses exist only for changes
      that keep each block balanced; others give NaN or that of the nearest ones.

    Raises:
      TypeError, ValueError: as `solve`.

    Status: CONVERGED; MAX_STEPS or STALLED with the best that was found; INFEASIBLE;
      INVALID_INPUT, MASS_MISMATCH and NONFINITE with NaN.
    Cost: O(k^2 max(n, m)) a Newton step, k = min(n, m), and some ten passes. Tens of
      steps for plans with several entries a row; a gamma so small that nearly every row
      has one entry takes hundreds. Four arrays of the size of the costs. Under `vmap`
      problems follow one another on a CPU; on an accelerator all run as long as the
      slowest. Changing numbers compiles nothing.
    Source: Lorenz, Manns, Meyer, "Quadratically regularized optimal transport" (Appl.
      Math. Optim. 2021); Blondel, Seguy, Rolet (AISTATS 2018). docs/sparse.md.

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(4.0)
    >>> solution = solve_sparse((x[:, None] - x[None, :]) ** 2, gamma=1.0)
    >>> bool(solution.converged), int(solution.nonzero)
    (True, 4)
    """
    value = as_float("gamma", gamma)
    if value.shape != ():
        raise ValueError(f"gamma must be a scalar; got shape {value.shape}")
    arguments.positive("gamma", value)
    problem = make_problem(cost, a, b, epsilon=value, rho_a=rho_a, rho_b=rho_b)
    dtype = problem.dtype
    problem = Problem(
        Dense(problem.geometry.dense().cost),
        problem.a,
        problem.b,
        problem.epsilon,
        problem.rho_a,
        problem.rho_b,
    )
    known = default_tolerance(dtype) if tolerance is None else tolerance
    options = newton.Options(
        as_positive("tolerance", known, dtype),
        as_positive("max_steps", max_steps, jnp.int32),
    )
    start = _initial(init, problem)
    given = jnp.asarray(tolerance is not None)
    arrays = jax.lax.stop_gradient((problem, start, options, given))
    f, g, error, used, status, steps = _run(*arrays)
    f, g = _attached(problem, f, g)
    return SparseSolution(problem, f, g, error, used, status, steps)
