"""`solve`: check the input, choose the method, solve, attach the derivative."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, Grid, PointCloud
from jaxsns.implicit import potentials as implicit
from jaxsns.numerics import default_tolerance
from jaxsns.problem import arguments, dual, gauge
from jaxsns.problem.checks import check_values, is_traced
from jaxsns.problem.inputs import as_float, as_positive, make_problem
from jaxsns.problem.offsets import Reduced, reduce
from jaxsns.problem.problem import Problem
from jaxsns.recording import recorder
from jaxsns.recording.history import Step
from jaxsns.recording.progress import listener
from jaxsns.recording.recorder import RecordingOptions
from jaxsns.solution import Solution
from jaxsns.solvers import registry
from jaxsns.solvers.dispatch import execute
from jaxsns.solvers.options import Options
from jaxsns.solvers.streamed import driver


def initial(problem: Problem, init: Any) -> tuple[jax.Array, jax.Array] | None:
    """Checked potentials to start from; one that is None follows from the other."""
    if init is None:
        return None
    if not isinstance(init, tuple | list) or len(init) != 2:
        raise TypeError(f"init must be a pair (f, g); got {type(init).__name__}")
    given: list[jax.Array | None] = []
    for name, value, size in zip("fg", init, problem.shape, strict=True):
        if value is None:
            given.append(None)
            continue
        value = as_float(f"{name} of init", value).astype(problem.dtype)
        if value.shape != (size,):
            raise ValueError(
                f"{name} of init must have shape [{size}] to match cost "
                f"{problem.shape}; got {value.shape}"
            )
        if not isinstance(value, Tracer) and np.isnan(np.asarray(value)).any():
            raise ValueError(f"{name} of init must not contain NaN")
        given.append(value)
    f, g = given
    if f is None and g is None:
        raise ValueError("init must have at least one of f and g; got (None, None)")
    if f is None:
        assert g is not None
        low = dual.nothing(problem)
        f = dual.row_update(problem, jnp.where(problem.b > 0, g, low))
    return f, dual.column_update(problem, f) if g is None else g


def _recording(history: bool, progress: Any) -> RecordingOptions | None:
    if not isinstance(history, bool):
        raise TypeError(
            "history must be True or False, since it changes what comes back; got "
            f"{type(history).__name__}"
        )
    told = listener(progress)
    return RecordingOptions(history, told) if history or told is not None else None


# Compiled, since one by one these operations and the many of the derivative took longer
# to compile for a new shape than all together [D36].
@jax.jit
def _attached(problem: Problem, f: jax.Array, g: jax.Array, options: Any):
    """Potentials with the derivative of the solution, and the tolerance used."""
    floor = dual.rounding_error(problem, f, g, options.rounding_share)
    tolerance = jax.lax.stop_gradient(jnp.maximum(options.tolerance, floor))
    return *gauge.with_gauge(problem, *implicit.attach(problem, f, g)), tolerance


@hints.answered
def solve(
    cost: CostLike | Problem,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike | None = None,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    method: str | Options = "auto",
    init: tuple[jax.Array, jax.Array] | None = None,
    max_steps: ArrayLike | None = None,
    continuation: bool | None = None,
    early_stop: bool = True,
    relative_to: str | None = None,
    scale_cost: str | None = None,
    history: bool = False,
    progress: bool | Callable[[Step], None] = False,
) -> Solution:
    """Solve entropic optimal transport between a and b.

        minimise <C, P> + epsilon sum P (log P - 1)  over P >= 0, P 1 = a, P^T 1 = b

    or, where rho_a or rho_b is given, with penalties rho_a KL(P 1 | a) and
    rho_b KL(P^T 1 | b) in place of equality (unbalanced, semi-relaxed).

    Args:
      cost: [n, m] costs in any unit, +inf where a pair is forbidden, a geometry
        (`Dense`, `PointCloud`, `Grid`), or a `Problem` (then a, b, epsilon, rho and the
        scales must be left out).
      a: [n] row masses >= 0; uniform with total 1 if None. On a `Grid` also in the
        grid's shape; potentials come back flat (`Grid.on_grid`).
      b: [m] column masses >= 0 with the same total; uniform if None.
      epsilon: [] regularisation > 0, in units of cost; None: 0.05 of the standard
        deviation of the costs. That grows with the distance between two clouds: far
        apart the plan is close to the product of the masses. For an epsilon that does
        not grow: epsilon=0.05, relative_to="within".
      rho_a: [] or [n] weight > 0 of the penalty of the rows, in units of cost; a large
        one is close to equality, infinity or None is equality. tau, where a library
        asks for it, is rho / (rho + epsilon).
      rho_b: [] or [m] the same for the columns.
      tolerance: [] L1 error of both marginals together, relative to the total
        mass, at which to stop; None: 1e-10 in float64, 2e-5 in float32.
      method: "auto" (nothing to tune), "newton", "sinkhorn" (over-relaxed), "sns"
        (as published), or an options object of one of them; "symmetric" for a
        symmetric cost with a = b and rho_a = rho_b. Under `jit`, where these are not
        checked, a wrong use shows in the error.
      init: (f [n], g [m]) potentials to start from; one of them may be None. Of two,
        those of the smaller side are used: the others follow from them.
      max_steps: [] limit of sweeps; None: 1,000 (Newton) or 20,000 (Sinkhorn).
      continuation: follow a path of decreasing epsilon first; None: as suits the
        method (yes for "auto" and "newton").
      early_stop: False makes exactly `max_steps` plain Sinkhorn sweeps and spends
        nothing on errors; `error` is then an upper bound that the last sweep gives,
        the status CONVERGED if it is within the tolerance and MAX_STEPS if not, and
        the derivative that of the optimum at the marginals that were reached.
      relative_to: epsilon is a multiple of the costs' "max", "mean", "median" or
        "std", or of the spread "within" the clouds; see `make_problem`.
      scale_cost: divide the costs by such a scale first; potentials and values are
        then in units of the scaled cost.
      history: record error, kind of step, epsilon and so on of every step in
        `solution.history`, 512 rows at most, and a last row with the error of the
        solution; under `vmap` for each lane, which is then solved by itself.
      progress: True shows a bar on the terminal while it runs; a function gets a
        `Step` at every Newton step, every eighth sweep and the end, also from inside
        `jit`. An exception that it raises ends the solve. Each of these, and each
        function, is a program of its own.

    Returns:
      The `Solution`; look at `solution.converged`. Its potentials, value, plan and
      so on can be differentiated with respect to the costs or points, a, b, epsilon
      and rho, in forward and reverse mode and to any order.

    Raises:
      TypeError, ValueError: see `make_problem`; bad options and shapes likewise.

    Status: CONVERGED, or why not; INVALID_INPUT, MASS_MISMATCH and NONFINITE come
      with NaN potentials, the others with the best found.
    Cost: O(n m) time an iteration; two to three arrays of the size of the costs
      beside them, one more if n > m; none where they are streamed or on a grid. All
      numbers are data: a change of epsilon, tolerance, max_steps, masses or costs
      compiles nothing.
    Source: docs/mathematics.md; Tang et al., ICLR 2024, for the sparse Newton idea.
    """
    if isinstance(cost, Problem):
        given = (a, b, epsilon, rho_a, rho_b, relative_to, scale_cost)
        if not all(x is None for x in given):
            raise TypeError("a Problem has its own masses, epsilon and scale already")
        problem = cost
        if isinstance(problem.geometry, PointCloud):
            geometry = problem.geometry.settled()
            problem = dataclasses.replace(problem, geometry=geometry)
        check_values(problem)
    else:
        problem = make_problem(
            cost,
            a,
            b,
            epsilon=epsilon,
            rho_a=rho_a,
            rho_b=rho_b,
            relative_to=relative_to,
            scale_cost=scale_cost,
        )
    early_stop = arguments.as_bool("early_stop", early_stop)
    name, chosen = registry.find(method, early_stop)
    if name == "sns" and not problem.balanced:
        raise ValueError(
            "method 'sns' solves balanced problems only; leave out rho_a and rho_b, or "
            "use 'auto', 'newton' or 'sinkhorn'"
        )
    if name == "sns" and isinstance(problem.geometry, Grid):
        raise ValueError(
            "method 'sns' needs the entries of the plan, which a Grid never forms; use "
            "'auto', 'newton' or 'sinkhorn', or geometry.dense()"
        )
    options = _limited(problem, chosen.options, tolerance, max_steps)
    if not problem.geometry.has_kernel:
        driver.check(name, options, continuation)
    path = chosen.path
    if continuation is not None:
        path = arguments.as_bool("continuation", continuation)
    if path and name in ("fixed", "sns"):
        raise ValueError(f"method {name!r} has no continuation; got continuation=True")
    start = initial(problem, init)
    recording = _recording(history, progress)
    # The same program: what differs is the patience, which is data.
    program = "newton" if name == "auto" else name
    if name == "symmetric":
        _require_symmetric(problem)
    # Costs of a "symmetric" problem must stay symmetric.
    parts = None if name == "symmetric" else reduce(problem)
    reduced, offsets = (problem, None) if parts is None else parts
    if start is None and name == "fixed":
        # The textbook's sweeps begin at potentials of zero, of the costs as they are.
        start = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    if start is not None and offsets is not None:
        start = offsets.taken(*start)
    with jax.named_scope("jaxsns.solve"):
        held = jax.lax.stop_gradient((reduced, options, start))
        out = execute(program, path, recording, *held)
    f, g, used = _attached(reduced, out.f, out.g, options)
    steps = recorder.history(out.record, out.error, reduced.epsilon, out.counts)
    core = None
    if offsets is not None:
        core = Reduced(reduced, f, g, offsets)
        f, g = offsets.given_back(problem, f, g)
    ended = out.error, used, out.status, out.counts
    return Solution(problem, f, g, *ended, name, steps, core)


def _require_symmetric(problem: Problem) -> None:
    """Raise ValueError for a problem that is known not to be its own transpose."""
    n, m = problem.shape
    if n != m:
        raise ValueError(f"method 'symmetric' needs n = m; got a cost of shape {n, m}")
    pairs = [("masses a and b", problem.a, problem.b)]
    if problem.rho_a is not None and problem.rho_b is not None:
        pairs.append(("rho_a and rho_b", problem.rho_a, problem.rho_b))
    cost = problem.geometry.arrays.get("cost")
    if cost is not None:
        pairs.append(("costs and their transpose", cost, cost.T))
    for words, one, other in pairs:
        if is_traced(one, other):
            continue
        if not np.allclose(np.asarray(one), np.asarray(other), rtol=1e-5):
            raise ValueError(
                f"method 'symmetric' needs equal {words}; use 'auto' if they differ"
            )


def _limited(problem: Problem, options: Options, tolerance: Any, max_steps: Any):
    """Options with the numbers that stop a solve, checked and in their dtypes.

    Without a tolerance the default is taken, or what rounding explains if that is more.
    """
    tolerance = options.tolerance if tolerance is None else tolerance
    share = options.rounding_share
    if tolerance is None:
        tolerance, share = default_tolerance(problem.dtype), 1.0
    steps = options.max_steps if max_steps is None else max_steps
    if steps is None:
        if getattr(options, "early_stop", True) is False:
            raise ValueError("early_stop=False needs max_steps, the number of sweeps")
        steps = registry.SINKHORN_SWEEPS
    return dataclasses.replace(
        options,
        tolerance=as_positive("tolerance", tolerance, problem.dtype),
        max_steps=as_positive("max_steps", steps, jnp.int32),
        rounding_share=jnp.asarray(share, problem.dtype),
    )
