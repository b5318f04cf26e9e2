"""`solve`: check the input, choose the method, solve, attach the derivative."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import dual, implicit
from jaxsns.numerics import default_tolerance
from jaxsns.problem import Problem, check_values, make_problem, validity
from jaxsns.solution import Solution
from jaxsns.solvers import continuation, iteration, newton, sinkhorn, sns
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.newton import NewtonOptions
from jaxsns.solvers.sinkhorn import SinkhornOptions
from jaxsns.solvers.sns import SNSOptions
from jaxsns.status import Status, code

Options = NewtonOptions | SinkhornOptions | SNSOptions

# "auto" sweeps on where the measured contraction predicts at most so many more
# sweeps; a Newton step costs about as much.
AUTO_PATIENCE = 12.0
WARM_ERROR = 0.5  # an initial potential with a larger marginal error is not trusted


class Method(NamedTuple):
    """An iteration: its options, how it starts, and how one level of it runs."""

    options: Options
    init: Callable
    level: Callable  # one update, or a run, at one epsilon
    path: bool  # follow epsilon by default


METHODS = {
    "auto": Method(
        NewtonOptions(patience=AUTO_PATIENCE), newton.init, newton.update, True
    ),
    "newton": Method(NewtonOptions(), newton.init, newton.update, True),
    "sinkhorn": Method(SinkhornOptions(), sinkhorn.init, sinkhorn.update, False),
    "sns": Method(SNSOptions(), sns.init, sns.run, False),
}


def _method(method: str | Options) -> tuple[str, Method]:
    if isinstance(method, str):
        if method not in METHODS:
            names = ", ".join(repr(name) for name in METHODS)
            raise ValueError(
                f"method must be one of {names} or an options object; got {method!r}"
            )
        return method, METHODS[method]
    for name, known in METHODS.items():
        if isinstance(method, type(known.options)) and name != "auto":
            return name, known._replace(options=method)
    raise TypeError(
        "method must be a name or NewtonOptions, SinkhornOptions or SNSOptions; "
        f"got {type(method).__name__}"
    )


def _initial(problem: Problem, init: Any) -> tuple[jax.Array, jax.Array] | None:
    if init is None:
        return None
    if not isinstance(init, tuple | list) or len(init) != 2:
        raise TypeError(f"init must be a pair (f, g); got {type(init).__name__}")
    out = []
    for name, value, size in zip("fg", init, problem.shape, strict=True):
        value = jnp.asarray(value, problem.dtype)
        if value.shape != (size,):
            raise ValueError(
                f"{name} of init must have shape [{size}] to match cost "
                f"{problem.shape}; got {value.shape}"
            )
        if not isinstance(value, Tracer) and np.isnan(np.asarray(value)).any():
            raise ValueError(f"{name} of init must not contain NaN")
        out.append(value)
    return out[0], out[1]


def _positive(name: str, value: Any, dtype: jnp.dtype) -> jax.Array:
    value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(f"{name} must be a scalar; got shape {value.shape}")
    if not isinstance(value, Tracer) and not float(value) > 0:
        raise ValueError(f"{name} must be positive; got {value}")
    return value.astype(dtype)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _iterate(method: str, path: bool, problem: Problem, options: Options, init):
    """Potentials, error, status and counts; nothing here is differentiated."""
    _, start, level, _ = METHODS[method]
    valid = validity(problem)
    invalid = iteration.as_status(code(Status.INVALID_INPUT))
    valid = jnp.where(options.tolerance > 0, valid, invalid)
    # A bad epsilon or mass is not worth an iteration, and must not loop for ever.
    fine = valid == code(Status.RUNNING)
    original = problem = problem.dense()
    problem = problem.with_epsilon(jnp.where(fine, problem.epsilon, 1))
    n, m = problem.shape
    swapped = n > m
    if swapped:
        problem = problem.transposed()
        init = None if init is None else init[::-1]
    state = start(problem, None if init is None else init[0])
    options = dataclasses.replace(
        options, max_steps=jnp.where(fine, options.max_steps, 0)
    )
    count = jnp.asarray(0, jnp.int32)
    if path:
        count = continuation.levels(problem)
        if init is not None:
            rows = dual.absorb(problem, state.f).rows
            error = jnp.sum(jnp.abs(rows - problem.a)) / problem.total
            count = jnp.where(error < WARM_ERROR, 0, count)
    end = continuation.run(problem, options, state, level, count)
    f, g = dual.centre(problem, end.f, end.g)
    if swapped:
        f, g = g, f
    f = jnp.where(original.a > 0, f, -jnp.inf)
    g = jnp.where(original.b > 0, g, -jnp.inf)
    # What is returned is what is judged: rounding of f and g counts as well.
    error = dual.marginal_error(original, f, g)
    judged = iteration.verdict(
        error,
        options.tolerance,
        jnp.asarray(0, jnp.int32),
        jnp.asarray(1, jnp.int32),
        jnp.asarray(True),
    )
    status = jnp.where(end.status == code(Status.CONVERGED), judged, end.status)
    status = jnp.where(fine, status, valid).astype(jnp.int32)
    bad = ~fine | (status == code(Status.NONFINITE))
    f, g = jnp.where(bad, jnp.nan, f), jnp.where(bad, jnp.nan, g)
    return f, g, jnp.where(fine, error, jnp.nan), status, end.counts.plus(passes=1)


def solve(
    cost: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: Any = None,
    tolerance: Any = None,
    method: str | Options = "auto",
    init: tuple[jax.Array, jax.Array] | None = None,
    max_steps: Any = None,
    continuation: bool | None = None,
    relative_to: str | None = None,
    scale_cost: str | None = None,
) -> Solution:
    """Solve entropic optimal transport between a and b.

        minimise <C, P> + epsilon sum P (log P - 1)  over P >= 0, P 1 = a, P^T 1 = b

    Args:
      cost: [n, m] costs in any unit, a geometry (`Dense`, `PointCloud`), or a
        `Problem` (then a, b, epsilon and the scales must be left out).
      a: [n] row masses >= 0; uniform with total 1 if None.
      b: [m] column masses >= 0 with the same total; uniform if None.
      epsilon: [] regularisation > 0, in units of cost; None: 0.05 of the standard
        deviation of the costs.
      tolerance: [] L1 error of both marginals together, relative to the total
        mass, at which to stop; None: 1e-10 in float64, 2e-5 in float32.
      method: "auto" (nothing to tune), "newton", "sinkhorn" (over-relaxed), "sns"
        (as published), or an options object of one of them.
      init: (f [n], g [m]) potentials to start from.
      max_steps: [] limit of sweeps; None: 1,000 (Newton) or 20,000 (Sinkhorn).
      continuation: follow a path of decreasing epsilon first; None: as suits the
        method (yes for "auto" and "newton").
      relative_to: epsilon is a multiple of the costs' "max", "mean", "median" or
        "std".
      scale_cost: divide the costs by such a scale first; potentials and values are
        then in units of the scaled cost.

    Returns:
      The `Solution`; look at `solution.converged`. Its potentials, value, plan and
      so on can be differentiated with respect to the costs or points, a, b and
      epsilon, in forward and reverse mode and to any order.

    Raises:
      TypeError, ValueError: see `make_problem`; bad options and shapes likewise.

    Status: CONVERGED, or why not; INVALID_INPUT, MASS_MISMATCH and NONFINITE come
      with NaN potentials, the others with the best found.
    Cost: O(n m) time an iteration; two to three arrays of the size of the costs
      beside them, one more if n > m. All numbers are data: a change of epsilon,
      tolerance, max_steps, masses or costs compiles nothing.
    Source: docs/mathematics.md; Tang et al., ICLR 2024, for the sparse Newton idea.
    """
    if isinstance(cost, Problem):
        if not all(x is None for x in (a, b, epsilon, relative_to, scale_cost)):
            raise TypeError("a Problem has its own masses, epsilon and scale already")
        problem = cost
        check_values(problem)
    else:
        problem = make_problem(
            cost, a, b, epsilon=epsilon, relative_to=relative_to, scale_cost=scale_cost
        )
    name, chosen = _method(method)
    options = chosen.options
    if tolerance is None and isinstance(method, str):
        tolerance = default_tolerance(problem.dtype)
    tolerance = options.tolerance if tolerance is None else tolerance
    steps = options.max_steps if max_steps is None else max_steps
    options = dataclasses.replace(
        options,
        tolerance=_positive("tolerance", tolerance, problem.dtype),
        max_steps=_positive("max_steps", steps, jnp.int32),
    )
    path = chosen.path if continuation is None else bool(continuation)
    start = _initial(problem, init)
    f, g, error, status, counts = _iterate(
        name, path, *jax.lax.stop_gradient((problem, options, start))
    )
    f, g = implicit.attach(problem, f, g)
    f, g = dual.centre(problem, f, g)
    return Solution(problem, f, g, error, status, Counts(*counts), name)
