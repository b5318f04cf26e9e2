"""Semismooth Newton's method on the dual, along a path of decreasing gamma.

At a large gamma the plan is dense and a few steps end in it. Each level starts from the
potentials of the last. A step solves the Hessian of the present support, with a small
shift where that support splits; an exact search along the direction follows. A step
that the search had to shorten is followed by a sweep, which maximises the dual over
each potential alone: it finds entries for rows and columns that lost all of theirs.

Sources: Lorenz, Manns, Meyer (2019) for the method; the path is ours.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur
from jaxsns.implicit.potentials import solve_stored
from jaxsns.numerics import finite_minus_inf, machine_epsilon
from jaxsns.problem import dual as masses
from jaxsns.problem import marginal
from jaxsns.problem.problem import Problem, has_gauge
from jaxsns.solvers.loop import as_status, run, status_at
from jaxsns.sparse import dual
from jaxsns.status import Status, code

SHORTER = 4.0  # factor of gamma from a level to the next [D62]
LEVEL_ERROR = 1e-2  # relative L1 error at which a level ends [D62]
FIRST = 0.25  # gamma, over the spread of costs per mean mass of an atom [D62]
# The slope at the end of a search, over that at its start. Above: it goes on. [D62]
LOWEST_SLOPE, HIGHEST_SLOPE = -0.1, 0.5
TRIALS = 30  # of a search [D62]
MARGIN = 0.05  # of its bracket, nearer to whose ends no trial is [D62]
SHORT = 0.5  # length of a step below which a sweep follows [D62]
FIT_PASSES = 50  # of Newton's method for each potential alone [D62]
PROGRESS = 0.5  # of the error: a step that solved its support leaves less [D62]


class Options(NamedTuple):
    """Numbers that stop an iteration."""

    tolerance: jax.Array  # []
    max_steps: jax.Array  # [] int32


class State(NamedTuple):
    """An iterate, and how good it is."""

    f: jax.Array  # [n]
    g: jax.Array  # [m]
    gamma: jax.Array  # [] of this level
    error: jax.Array  # [] relative L1 error at this level
    entries: jax.Array  # [] of the support
    step: jax.Array  # [] int32
    status: jax.Array  # [] int32


def _shift(dtype: jnp.dtype) -> float:
    """Shift of the normalised system in a step: directions that a split leaves free.

    About what a search along them can still resolve [D62].
    """
    return 1e-9 if jnp.finfo(dtype).bits >= 64 else 1e-5


def _fit(cost: jax.Array, mass, rho, f: jax.Array, gamma: jax.Array) -> jax.Array:
    """[n] potentials at which each row has its mass, for costs [n, m] less g.

    Newton's method on a convex piecewise linear function, from above: it falls and
    ends. Of a penalty the tangent at f counts.
    """
    wanted = gamma * marginal.target_mass(mass, rho, f)
    stiff = marginal.stiffness(wanted, rho, jnp.ones_like(gamma))
    low = jnp.min(cost, axis=1) + wanted
    start = low if rho is None else jnp.maximum(low, f)

    def newton(state):
        k, x, _ = state
        active = cost < x[:, None]
        count = jnp.sum(active, axis=1, dtype=x.dtype)
        total = wanted + stiff * f + jnp.sum(jnp.where(active, cost, 0), axis=1)
        slope = count + stiff
        new = jnp.where(slope > 0, total / jnp.where(slope > 0, slope, 1), x)
        moved = jnp.any(jnp.abs(new - x) > 2 * machine_epsilon(x.dtype) * jnp.abs(x))
        return k + 1, new, moved

    run_on = lambda s: s[2] & (s[0] < FIT_PASSES)
    x = control.while_loop(run_on, newton, (0, start, jnp.asarray(True)))[1]
    return jnp.where(mass > 0, x, finite_minus_inf(x.dtype))


def sweep(problem: Problem, f: jax.Array, g: jax.Array):
    """Fit the rows, then the columns: ([n], [m])."""
    cost, gamma = problem.geometry.dense().entries, problem.epsilon
    f = _fit(cost - g[None, :], problem.a, problem.rho_a, f, gamma)
    g = _fit(cost.T - f[None, :], problem.b, problem.rho_b, g, gamma)
    return f, g


def _direction(problem: Problem, f: jax.Array, g: jax.Array):
    """([n], [m]) Newton direction, and ([n], [m]) the gradient."""
    gamma = problem.epsilon
    s = dual.slack(problem, f, g)
    mass = jnp.maximum(s, 0) / gamma
    on = (s > 0).astype(f.dtype)
    a, b = masses.target_masses(problem, f, g)
    rows, columns = a - jnp.sum(mass, axis=1), b - jnp.sum(mass, axis=0)
    # A line without entries and without penalty moves along its gradient.
    lines = lambda axis, wanted, rho: jnp.maximum(
        jnp.sum(on, axis=axis) + marginal.stiffness(wanted, rho, gamma),
        jnp.where(jnp.any(s > 0, axis=axis), 0, 1),
    )
    diagonals = lines(1, a, problem.rho_a), lines(0, b, problem.rho_b)
    shift = jnp.asarray(_shift(f.dtype), f.dtype)
    kernel = DenseKernel(on)
    ones = jnp.ones_like(f), jnp.ones_like(g)
    system = schur.make_system(kernel, *ones, *diagonals, shift, has_gauge(problem))
    inverse = 1 / diagonals[1]
    rhs = system.left * gamma * (rows - kernel.times(inverse * columns))
    df = system.left * solve_stored(system, schur.project(system, rhs))
    dg = inverse * (gamma * columns - kernel.transpose_times(df))
    return (df, dg), (rows, columns)


class _Search(NamedTuple):
    t: jax.Array
    slope: jax.Array  # at t
    low: jax.Array  # bracket, and its slopes
    low_slope: jax.Array
    high: jax.Array  # infinite until one is known
    high_slope: jax.Array
    trial: jax.Array


def _search(problem: Problem, f, g, df, dg, start: jax.Array) -> jax.Array:
    """[] length of a step: about where the dual's slope along it is zero.

    The slope falls, since the dual is concave. Regula falsi, in the form of Illinois.
    """
    cost = problem.geometry.dense().entries

    def slope(t):
        f_t, g_t = masses.finite(problem, f + t * df, g + t * dg)
        s = (f_t[:, None] + g_t[None, :]) - cost
        change = df[:, None] + dg[None, :]
        a, b = masses.target_masses(problem, f_t, g_t)
        out = jnp.sum(jnp.maximum(s, 0) * change) / problem.epsilon
        out = jnp.sum(a * df) + jnp.sum(b * dg) - out
        return jnp.where(jnp.isnan(out), -jnp.inf, out)

    def running(s: _Search):
        good = (s.slope >= LOWEST_SLOPE * start) & (s.slope <= HIGHEST_SLOPE * start)
        return ~good & (s.trial < TRIALS)

    def update(s: _Search) -> _Search:
        up = s.slope > 0
        # The end that stays counts half.
        half_low = jnp.where(up, s.slope, s.low_slope / 2)
        half_high = jnp.where(up, s.high_slope / 2, s.slope)
        low, high = jnp.where(up, s.t, s.low), jnp.where(up, s.high, s.t)
        width = high - low
        share = half_low / (half_low - half_high)
        share = jnp.where(jnp.isfinite(share), share, 0.5)
        inside = low + width * jnp.clip(share, MARGIN, 1 - MARGIN)
        t = jnp.where(jnp.isfinite(high), inside, 2 * s.t)
        return _Search(t, slope(t), low, half_low, high, half_high, s.trial + 1)

    zero, one = jnp.zeros_like(start), jnp.ones_like(start)
    state = _Search(
        one, slope(one), zero, start, jnp.inf * one, -start, jnp.asarray(0, jnp.int32)
    )
    return control.while_loop(running, update, state).t


def _judged(problem: Problem, state: State, f, g, full, options: Options) -> State:
    """State at new potentials: a level that ended goes on to the next."""
    last = state.gamma <= problem.epsilon
    here = problem.with_epsilon(state.gamma)
    s = dual.slack(problem, f, g)
    sums = jnp.sum(jnp.maximum(s, 0), axis=1), jnp.sum(jnp.maximum(s, 0), axis=0)
    entries = jnp.sum(s > 0)
    at = lambda q: dual.relative_error(q, f, g, *[x / q.epsilon for x in sums])
    error = at(here)
    gamma = jnp.where(
        error <= LEVEL_ERROR,
        jnp.maximum(state.gamma / SHORTER, problem.epsilon),
        state.gamma,
    )
    stays = gamma == state.gamma
    error = jnp.where(stays, error, at(problem.with_epsilon(gamma)))
    stalled = stays & full & (entries == state.entries)
    stalled &= (error > PROGRESS * state.error) & last
    step = state.step + 1
    status = status_at(error, options.tolerance, step, options.max_steps, stalled)
    early = (gamma > problem.epsilon) & (status == code(Status.CONVERGED))
    status = jnp.where(early, code(Status.RUNNING), status)
    return State(f, g, gamma, error, entries, step, as_status(status))


def _step(problem: Problem, state: State, options: Options) -> State:
    here = problem.with_epsilon(state.gamma)
    f, g = state.f, state.g
    (df, dg), (rows, columns) = _direction(here, f, g)
    start = jnp.sum(rows * df) + jnp.sum(columns * dg)
    t = _search(here, f, g, df, dg, start)
    ok = jnp.isfinite(t) & (start > 0)
    moved_f = jnp.where(ok & (problem.a > 0), f + t * df, f)
    moved_g = jnp.where(ok & (problem.b > 0), g + t * dg, g)

    def swept():
        f, g = sweep(here, moved_f, moved_g)
        if problem.balanced:
            return f, g
        # With penalties a sweep is good to first order only.
        better = dual.value(here, f, g) > dual.value(here, moved_f, moved_g)
        return jnp.where(better, f, moved_f), jnp.where(better, g, moved_g)

    short = ~ok | (t < SHORT)
    f, g = control.cond(short, swept, lambda: (moved_f, moved_g))
    return _judged(problem, state, f, g, ok & (t == 1), options)


def first_gamma(problem: Problem) -> jax.Array:
    """[] at which a plan spreads over a good part of a row, no less than gamma."""
    spread = problem.geometry.dense().spread(problem.a > 0, problem.b > 0)
    atoms = jnp.maximum(jnp.sum(problem.a > 0), jnp.sum(problem.b > 0))
    total = jnp.minimum(jnp.sum(problem.a), jnp.sum(problem.b))
    first = FIRST * spread * atoms.astype(spread.dtype) / total
    return jnp.maximum(jnp.where(jnp.isfinite(first), first, 0), problem.epsilon)


def iterate(problem: Problem, init, options: Options, valid: jax.Array) -> State:
    """Potentials of a problem, from those of `init` or along a path."""
    if init is None:
        gamma = first_gamma(problem)
        f, g = jnp.zeros_like(problem.a), jnp.zeros_like(problem.b)
    else:
        gamma = problem.epsilon
        f, g = init
    f, g = masses.finite(problem, f, g)
    f, g = sweep(problem.with_epsilon(gamma), f, g)
    zero = jnp.asarray(-1, jnp.int32), as_status(valid)
    start = State(f, g, gamma, jnp.asarray(jnp.inf, f.dtype), jnp.asarray(0), *zero)
    judged = _judged(problem, start, f, g, jnp.asarray(False), options)
    fine = valid == code(Status.RUNNING)
    start = judged._replace(status=jnp.where(fine, judged.status, valid))
    return run(lambda s: _step(problem, s, options), start)
