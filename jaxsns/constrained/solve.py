"""`solve_constrained`: Newton's method on the multipliers of linear constraints.

With multipliers u the plan is that of the cost C + sum_k u_k A_k, and the dual is

    D(u) = OT(C + sum_k u_k A_k) - sum_k (upper_k [u_k]_+ - lower_k [-u_k]_+) .

D is concave. The slope of OT is the moments m_k = <A_k, P>, and its Hessian the
derivative of m through the implicit derivative of the plan: the Schur complement on
the multipliers of the system that they border. Constraints that are active, where
m + s u lies outside the bounds, get a Newton step to their bound; others get u = 0.
Source: Tang et al., arXiv 2403.05054, for the dual of constrained entropic transport.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.constrained.solution import ConstrainedSolution
from jaxsns.geometry import CostLike, Dense
from jaxsns.linear import lapack
from jaxsns.numerics import default_tolerance, machine_epsilon, matmul, vdot
from jaxsns.problem.checks import is_traced, require
from jaxsns.problem.inputs import as_float, as_positive, make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solution import Solution
from jaxsns.solver import solve
from jaxsns.solvers.loop import as_status, run
from jaxsns.status import Status, code

MAX_STEPS = 50  # Newton steps on the multipliers [D63]
HALVINGS = 20  # of a step [D63]
ARMIJO = 1e-4  # share of the promised gain [D63]
SHIFT = 1e-10  # of the Hessian, over its largest entry: constraints may repeat [D63]


class _Data(NamedTuple):
    problem: Problem
    matrices: jax.Array  # [K, n, m]
    lower: jax.Array  # [K]
    upper: jax.Array  # [K]


class _State(NamedTuple):
    u: jax.Array  # [K]
    before: jax.Array  # [K] of the step before
    error: jax.Array  # the last finite one
    step: jax.Array
    status: jax.Array


def _solved(data: _Data, u: jax.Array, tolerance: jax.Array) -> Solution:
    cost = data.problem.geometry.dense().cost
    changed = cost + jnp.tensordot(u, data.matrices, 1, precision="highest")
    p = data.problem
    changed = Problem(Dense(changed), p.a, p.b, p.epsilon)
    return solve(changed, tolerance=tolerance)


def _moments(data: _Data, solution: Solution) -> jax.Array:
    return jnp.sum(data.matrices * solution.plan()[None], axis=(1, 2))


def _paid(data: _Data, u: jax.Array) -> jax.Array:
    """[] what multipliers cost by the bounds; infinite ones cost nothing at 0."""
    up = jnp.where(u > 0, u * jnp.where(u > 0, data.upper, 0), 0)
    down = jnp.where(u < 0, u * jnp.where(u < 0, data.lower, 0), 0)
    return jnp.sum(up + down)


def _dual(data: _Data, u: jax.Array, tolerance: jax.Array) -> jax.Array:
    return _solved(data, u, tolerance).value - _paid(data, u)


def _curvature(data: _Data, u: jax.Array, tolerance: jax.Array):
    """([K] moments, [K, K] their derivative in u, [] transport's value at u)."""

    def moments(u: jax.Array):
        solution = _solved(data, u, tolerance)
        m = _moments(data, solution)
        return m, (m, solution.value)

    slopes, (m, value) = jax.jacfwd(moments, has_aux=True)(u)
    return m, (slopes + slopes.T) / 2, value


def _active(data: _Data, u: jax.Array, m: jax.Array, slopes: jax.Array):
    """([K] bool, [K] bound that is to be met): where m + s u is not within bounds."""
    scale = jnp.maximum(-jnp.diagonal(slopes), machine_epsilon(m.dtype))
    pulled = m + scale * u
    bound = jnp.clip(pulled, data.lower, data.upper)
    return pulled != bound, bound


def _regular(slopes: jax.Array, active: jax.Array) -> jax.Array:
    """[K, K] minus the Hessian of the active ones, the identity for the others."""
    both = active[:, None] & active[None, :]
    size = jnp.maximum(jnp.max(jnp.abs(slopes)), machine_epsilon(slopes.dtype))
    hessian = jnp.where(both, -slopes, 0)
    return hessian + jnp.diag(jnp.where(active, SHIFT * size, 1))


def _newton(slopes: jax.Array, active: jax.Array, rhs: jax.Array) -> jax.Array:
    """[K] solution of the system of the active constraints."""
    matrix = _regular(slopes, active)
    return control.custom_linear_solve(
        lambda x: matmul(matrix, x),
        rhs,
        lambda _, b: lapack.cholesky_solve(lapack.cholesky(matrix), b),
        symmetric=True,
    )


def _size(data: _Data) -> jax.Array:
    """[K] unit of errors: the mass times the largest entry."""
    largest = jnp.max(jnp.abs(data.matrices), axis=(1, 2))
    return jnp.sum(data.problem.a) * jnp.where(largest > 0, largest, 1)


def _step(data: _Data, inner: jax.Array, tolerance, max_steps, s: _State) -> _State:
    m, slopes, value = _curvature(data, s.u, inner)
    active, bound = _active(data, s.u, m, slopes)
    missed = jnp.where(active, m - bound, 0)
    idle = jnp.where(active, 0, s.u)  # to be taken back to zero
    error = jnp.max(jnp.abs(missed) / _size(data)) + jnp.max(jnp.abs(idle))
    moved = jnp.where(active, missed - matmul(slopes, idle), 0)
    change = _newton(slopes, active, moved)
    change = jnp.where(active, change, -s.u)
    here = value - _paid(data, s.u)
    # One-sided where a multiplier is 0.
    up = (s.u > 0) | ((s.u == 0) & (change > 0))
    rates = jnp.where(change == 0, 0, m - jnp.where(up, data.upper, data.lower))
    slope = vdot(rates, change)

    def worse(state):
        t, k = state
        gain = _dual(data, s.u + t * change, inner) - here
        rounding = 10 * machine_epsilon(here.dtype) * jnp.abs(here)
        return ~(gain >= ARMIJO * t * slope - rounding) & (k < HALVINGS)

    half = lambda state: (state[0] / 2, state[1] + 1)
    one = jnp.ones((), here.dtype), jnp.asarray(0, jnp.int32)
    t, halvings = control.while_loop(worse, half, one)
    done, known = error <= tolerance, jnp.isfinite(error)
    status = jnp.where(s.step + 1 >= max_steps, code(Status.MAX_STEPS), s.status)
    # Without a plan multipliers grow until costs mean nothing.
    stuck = ~known | (halvings >= HALVINGS)
    status = jnp.where(stuck, code(Status.STALLED), status)
    status = jnp.where(done, code(Status.CONVERGED), status)
    u = jnp.where(done | stuck, jnp.where(known, s.u, s.before), s.u + t * change)
    error = jnp.where(known, error, s.error)
    return _State(u, s.u, error, s.step + 1, as_status(status))


@jax.jit
def _iterate(data: _Data, inner: jax.Array, tolerance, max_steps) -> _State:
    zero = jnp.zeros_like(data.lower)
    infinite = jnp.asarray(jnp.inf, zero.dtype)
    start = _State(zero, zero, infinite, jnp.asarray(0, jnp.int32), as_status(0))
    return run(lambda s: _step(data, inner, tolerance, max_steps, s), start)


@jax.custom_jvp
def _attach(data: _Data, u: jax.Array, inner: jax.Array) -> jax.Array:
    """[K] the multipliers unchanged, with the derivative of the solution."""
    return u


@_attach.defjvp
def _attach_jvp(primals, tangents):
    data, _, inner = primals
    u = _attach(*primals)
    # All parts move, if only by zero: JAX 0.12 cannot transpose an
    # `optimization_barrier` of which an operand has a tangent of zeros.
    moved = sum(jnp.sum(x) for x in jax.tree.leaves(tangents[0]))
    tangent = jax.tree.map(lambda x: x + 0 * moved, tangents[0])
    return u, _change(*control.alike(data, u, inner, tangent))


@jax.jit
def _change(data: _Data, u: jax.Array, inner: jax.Array, tangent: _Data) -> jax.Array:
    """[K] derivative of the multipliers along a change of the data."""

    def moments(q: _Data, u: jax.Array) -> jax.Array:
        return _moments(q, _solved(q, u, inner))

    # Of the data and of the multipliers at once: one solve is compiled, not two.
    m, along = jax.linearize(moments, data, u)
    still = jax.tree.map(jnp.zeros_like, tangent)
    slopes = jax.vmap(lambda du: along(still, du))(jnp.diag(jnp.ones_like(u)))
    slopes = (slopes + slopes.T) / 2
    active, _ = _active(data, u, m, slopes)
    bound = jnp.where(u > 0, tangent.upper, tangent.lower)
    change = along(tangent, jnp.zeros_like(u)) - bound
    return _newton(slopes, active, jnp.where(active, change, 0))


def _checked(constraints: Any, shape: tuple[int, int], dtype: Any):
    """([K, n, m], [K], [K]) of a list of (A, lower, upper)."""
    rows: list[list[jax.Array]] = [[], [], []]
    if not isinstance(constraints, list | tuple):
        raise TypeError(
            "constraints must be a list of (A, lower, upper); got "
            f"{type(constraints).__name__}"
        )
    for k, entry in enumerate(constraints):
        if not isinstance(entry, tuple | list) or len(entry) != 3:
            raise TypeError(
                f"constraints[{k}] must be (A, lower, upper); got {entry!r}"
            )
        wanted = (shape, (), ())
        names = ("A", "lower", "upper")
        for name, value, size, out in zip(names, entry, wanted, rows, strict=True):
            x = as_float(f"{name} of constraints[{k}]", value).astype(dtype)
            if x.shape != size:
                raise ValueError(
                    f"{name} of constraints[{k}] must have shape {list(size)}; "
                    f"got {x.shape}"
                )
            out.append(x)
        low, high = rows[1][-1], rows[2][-1]
        if not is_traced(low, high):
            require(
                bool(low <= high),
                lambda k=k, low=low, high=high: (
                    f"lower must not exceed upper in constraints[{k}]; got {low} and "
                    f"{high}"
                ),
            )
    if not rows[0]:
        raise ValueError("constraints must have at least one; got none (use solve)")
    return tuple(jnp.stack(x) for x in rows)


@hints.answered
def solve_constrained(
    cost: CostLike,
    constraints: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    max_steps: ArrayLike = MAX_STEPS,
) -> ConstrainedSolution:
    """Solve entropic transport with linear constraints on the plan.

        minimise <C, P> + epsilon sum P (log P - 1)
        over P >= 0 with P 1 = a, P^T 1 = b, lower_k <= <A_k, P> <= upper_k

    Args:
      cost: [n, m] finite costs in any unit, or a geometry; its matrix is formed.
      constraints: list of (A [n, m], lower [], upper []); infinite bounds are none,
        equal ones an equation.
      a: [n] row masses >= 0; uniform with total 1 if None.
      b: [m] column masses >= 0 with the same total; uniform if None.
      epsilon: [] regularisation > 0, as in `solve`.
      tolerance: [] error of the constraints, over the mass times the largest entry of
        A_k; None: 1e-8 in float64, 2e-4 in float32. Marginals are met as in `solve`.
      max_steps: [] limit of Newton steps on the multipliers.

    Returns:
      The `ConstrainedSolution`; look at `.converged`. Differentiable in the cost, A,
      bounds, masses and epsilon, where no constraint is just at the edge of its bound.

    Raises:
      TypeError, ValueError: a wrong type or shape always; bad values, lower > upper
        for one, if they are not traced.

    Status: CONVERGED; MAX_STEPS or STALLED, also where no plan meets the constraints:
      multipliers then grow. That of `solve` for bad traced values.
    Cost: a step takes K + 2 solves at most 20 times, as a rule some three; K n m
      numbers. For K constraints up to some tens.
    Source: Tang et al., arXiv 2403.05054. docs/small_problems.md.
    """
    problem = make_problem(cost, a, b, epsilon=epsilon)
    dtype = problem.dtype
    data = _Data(problem, *_checked(constraints, problem.shape, dtype))
    inner = jnp.asarray(default_tolerance(dtype), dtype)
    default = 1e-8 if jnp.finfo(dtype).bits >= 64 else 2e-4
    known = default if tolerance is None else tolerance
    known = as_positive("tolerance", known, dtype)
    limit = as_positive("max_steps", max_steps, jnp.int32)
    control.refuse_divided_lanes("solve_constrained", data)
    end = _iterate(*jax.lax.stop_gradient((data, inner, known, limit)))
    u = _attach(data, end.u, inner)
    solution = _solved(data, u, inner)
    fine = solution.converged & (end.status == code(Status.CONVERGED))
    worst = jnp.where(solution.converged, end.status, solution.status)
    status = as_status(jnp.where(fine, end.status, worst))
    value = solution.value - _paid(data, u)
    moments = _moments(data, solution)
    return ConstrainedSolution(solution, u, moments, value, end.error, status, end.step)
