"""Newton's method on the semi-dual, on an absorbed kernel.

Column marginals are kept exact (g is the soft minimum of f), so the unknown is the
row scaling x alone and the matrix is the Schur complement of `newton_system`. All
of it, directions, trials, Sinkhorn sweeps in between, costs products with one
kernel; exponentials of the matrix are needed only to absorb, a few times a solve.

Globalisation: a Levenberg shift proportional to the error, an exact dual gain for
each trial step, backtracking, and a Sinkhorn sweep after every step, which never
lowers the dual. Sources: Tang et al., ICLR 2024 (sweeps, then Newton); Tang and
Qiu, NeurIPS 2024, section on SSNS (shift mu |gradient| and ratio test).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import dual, newton_system
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.numerics import aim, largest_scaling, unit_roundoff
from jaxsns.problem import Problem, log_masses
from jaxsns.solvers import iteration
from jaxsns.solvers.iteration import Counts
from jaxsns.status import Status, code

FIRST_SWEEPS = 3  # before the first Newton step on a new kernel
SHRINK = 0.4  # of the step, at each backtrack
TRIALS = 6
FIRST_MU, LEAST_MU, GROW_MU = 0.1, 0.01, 4.0
ALWAYS_CHOLESKY, NEVER_CHOLESKY = 64, 4096  # rows; between them if CG is slow


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps", "patience"),
    meta_fields=("linear_solver",),
)
@dataclasses.dataclass(frozen=True)
class NewtonOptions:
    """Numbers are data; the linear solver changes the program.

    Attributes:
      tolerance: relative L1 error of both marginals.
      max_steps: sweeps, each with or without a Newton step before it.
      patience: sweeps that are made rather than a Newton step, if the measured
        contraction says that so many will do.
      linear_solver: "auto", "cg" or "cholesky".
    """

    tolerance: float | jax.Array = 1e-9
    max_steps: int | jax.Array = 1000
    patience: float | jax.Array = 0.0
    linear_solver: str = "auto"

    def __post_init__(self):
        """Refuse an unknown linear solver."""
        if self.linear_solver not in ("auto", "cg", "cholesky"):
            raise ValueError(
                "linear_solver must be 'auto', 'cg' or 'cholesky'; "
                f"got {self.linear_solver!r}"
            )


class NewtonState(NamedTuple):
    """What the next update needs."""

    f: jax.Array  # [n] cost
    g: jax.Array  # [m] cost
    error: jax.Array  # [] exact, of the plan of f and g
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32
    settled: jax.Array  # [] bool: the last steps ended by themselves
    counts: Counts


class _Point(NamedTuple):
    """A point of the semi-dual, with exact columns."""

    x: jax.Array
    y: jax.Array
    rows: jax.Array
    error: jax.Array


class _Inner(NamedTuple):
    point: _Point
    contraction: jax.Array  # [] of the last pure sweep
    mu: jax.Array
    newton: jax.Array  # [] bool: Newton has begun
    direct: jax.Array  # [] bool: CG was too slow, factorise
    idle: jax.Array  # [] int32
    step: jax.Array
    counts: Counts


class _Setting(NamedTuple):
    """Constants of one update."""

    kernel: DenseKernel
    a: jax.Array
    b: jax.Array
    log_b: jax.Array
    total: jax.Array
    target: jax.Array


def init(problem: Problem, f: jax.Array | None = None) -> NewtonState:
    """Start from row potentials f [n], or from zero."""
    f = jnp.zeros_like(problem.a) if f is None else f
    return NewtonState(
        f=f,
        g=jnp.zeros_like(problem.b),
        error=jnp.asarray(jnp.inf, problem.dtype),
        step=jnp.asarray(0, jnp.int32),
        status=iteration.as_status(code(Status.RUNNING)),
        settled=jnp.asarray(False),
        counts=iteration.no_counts(),
    )


def _at(setting: _Setting, x: jax.Array) -> _Point:
    y = dual.columns_for(setting.kernel, setting.log_b, x)
    rows = dual.rows_for(setting.kernel, x, y)
    error = jnp.sum(jnp.abs(rows - setting.a)) / setting.total
    return _Point(x, y, rows, error)


def _gain(setting: _Setting, old: _Point, new: _Point) -> jax.Array:
    """[] increase of the semi-dual, in mass; exact for exact columns."""
    return dual.weighted(setting.a, new.x - old.x) + dual.weighted(
        setting.b, new.y - old.y
    )


def _sweep(setting: _Setting, point: _Point) -> _Point:
    real = setting.a > 0
    ratio = setting.a / jnp.where(real, point.rows, 1)
    return _at(setting, point.x + jnp.where(real, jnp.log(ratio), 0))


def _direction(options: NewtonOptions, setting: _Setting, s: _Inner):
    """Newton direction in x, its slope and curvature, and the work it took."""
    point = s.point
    system = newton_system.make_system(
        setting.kernel,
        jnp.exp(point.x),
        jnp.exp(point.y),
        point.rows,
        setting.b,
        s.mu * point.error,
    )
    root = newton_system.inverse_root(point.rows)
    rhs = newton_system.project(system, root * (setting.a - point.rows))
    finest = 1e-6 if rhs.dtype == jnp.float64 else 1e-3
    accuracy = jnp.maximum(jnp.sqrt(point.error), 0.25 * setting.target / point.error)
    accuracy = jnp.clip(accuracy, finest, 0.1)
    n = rhs.shape[0]
    solver = options.linear_solver
    if solver == "auto" and n > NEVER_CHOLESKY:
        solver = "cg"
    if solver == "cholesky" or (solver == "auto" and n <= ALWAYS_CHOLESKY):
        u = newton_system.solve_cholesky(system, rhs)
        steps, direct = jnp.asarray(0, jnp.int32), s.direct
    else:
        # A factorisation costs about as much as n / 5 products.
        most = 100 + n // 5 if solver == "auto" else 500 + 2 * n
        most = jnp.where(s.direct, 0, most)
        end = newton_system.solve_cg(system, rhs, accuracy, most)
        u, steps, direct = end.x, end.steps, s.direct
        if solver == "auto":
            direct = s.direct | ~end.converged
            u = jax.lax.cond(
                direct,
                lambda: newton_system.solve_cholesky(system, rhs),
                lambda: end.x,
            )
    slope = jnp.vdot(rhs, u)
    curvature = slope - system.shift * jnp.vdot(u, u)
    dx = root * u
    dx = dx - jnp.where(setting.a > 0, dual.weighted(setting.a, dx) / setting.total, 0)
    return dx, slope, curvature, steps, direct


def _newton(options: NewtonOptions, setting: _Setting, s: _Inner) -> _Inner:
    """One direction, then trials of shrinking length; no move if none is good."""
    dx, slope, curvature, linear_steps, direct = _direction(options, setting, s)
    old = s.point
    noise = 500 * unit_roundoff(dx.dtype) * setting.total

    def ratio(length, new):
        predicted = length * slope - 0.5 * length**2 * curvature
        exact = _gain(setting, old, new) / predicted
        # Below rounding the value says nothing; the error still does.
        better = jnp.where(new.error < old.error, 1.0, -1.0).astype(dx.dtype)
        exact = jnp.where(predicted > noise, exact, better)
        return jnp.where(jnp.isfinite(exact) & jnp.isfinite(new.error), exact, -1)

    def attempt(trial):
        number, length, _, _ = trial
        new = _at(setting, old.x + length * dx)
        return number + 1, length * SHRINK, new, ratio(length, new)

    def failing(trial):
        number, _, _, rho = trial
        return (rho < 0.1) & (number < TRIALS)

    one = jnp.ones_like(slope)
    first = attempt((jnp.asarray(0, jnp.int32), one, old, -one))
    tried, _, new, rho = jax.lax.while_loop(failing, attempt, first)
    accepted = rho > 1e-4
    point = jax.tree.map(lambda u, v: jnp.where(accepted, u, v), new, old)
    harder = (tried > 1) | (rho < 0.25)
    easier = ~harder & (rho > 0.75)
    lower = jnp.where(s.mu > LEAST_MU, s.mu / GROW_MU, 0)
    mu = jnp.where(harder, jnp.maximum(GROW_MU * s.mu, LEAST_MU), s.mu)
    mu = jnp.where(easier, lower, mu)
    counts = s.counts.plus(newton_steps=1, linear_steps=linear_steps)
    return s._replace(point=point, mu=mu, direct=direct, counts=counts)


def _step(options: NewtonOptions, setting: _Setting, first: jax.Array, s: _Inner):
    """A Newton step if it pays, and a sweep."""
    needed = jnp.log(setting.target / s.point.error) / jnp.log(s.contraction)
    slow = ~((s.contraction < 1) & (needed <= options.patience))
    newton = s.newton | ((s.step - first >= FIRST_SWEEPS) & slow)
    moved = jax.lax.cond(newton, lambda t: _newton(options, setting, t), lambda t: t, s)
    point = _sweep(setting, moved.point)
    fine = jnp.isfinite(point.error)
    point = jax.tree.map(lambda u, v: jnp.where(fine, u, v), point, moved.point)
    noise = 16 * unit_roundoff(point.error.dtype) * setting.total
    dead = _gain(setting, s.point, point) <= noise
    dead = ~fine | (dead & (point.error > 0.9 * s.point.error))
    return moved._replace(
        point=point,
        contraction=point.error / s.point.error,
        newton=newton,
        idle=jnp.where(dead, s.idle + 1, 0),
        step=s.step + 1,
        counts=moved.counts.plus(sweeps=1),
    )


def update(problem: Problem, options: NewtonOptions, state: NewtonState) -> NewtonState:
    """Absorb, decide, and step on the kernel."""
    dtype = problem.dtype
    tolerance = jnp.asarray(options.tolerance, dtype)
    absorbed = dual.absorb(problem, state.f)
    error = jnp.sum(jnp.abs(absorbed.rows - problem.a)) / problem.total
    stalled = state.settled & (error > 0.5 * state.error)
    status = iteration.verdict(error, tolerance, state.step, options.max_steps, stalled)
    setting = _Setting(
        kernel=absorbed.kernel,
        a=problem.a,
        b=problem.b,
        log_b=log_masses(problem)[1],
        total=problem.total,
        target=aim(dtype) * tolerance,
    )

    def stepping(s: _Inner) -> jax.Array:
        small = jnp.max(jnp.abs(s.point.x)) <= largest_scaling(dtype)
        more = (s.point.error > setting.target) & (s.step < options.max_steps)
        return more & small & (s.idle < 4) & (status == code(Status.RUNNING))

    start = _Inner(
        point=_Point(jnp.zeros_like(problem.a), absorbed.y, absorbed.rows, error),
        contraction=jnp.ones_like(error),
        mu=jnp.asarray(FIRST_MU, dtype),
        newton=jnp.asarray(False),
        direct=jnp.asarray(False),
        idle=jnp.asarray(0, jnp.int32),
        step=state.step,
        counts=state.counts,
    )
    step = functools.partial(_step, options, setting, state.step)
    end = jax.lax.while_loop(stepping, step, start)
    return NewtonState(
        f=absorbed.f + problem.epsilon * end.point.x,
        g=problem.epsilon * absorbed.y - absorbed.top,
        error=error,
        step=end.step,
        status=status,
        settled=(end.point.error <= setting.target) | (end.idle >= 4),
        counts=end.counts.plus(passes=1),
    )


def run(problem: Problem, options: NewtonOptions, state: NewtonState) -> NewtonState:
    """Update until the status says why to stop."""
    return iteration.run(lambda s: update(problem, options, s), state)
