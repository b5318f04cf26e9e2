"""Newton's method on the semi-dual, on an absorbed kernel.

Column marginals are kept exact (g is the soft minimum of f), so the unknown is the
row scaling x alone and the matrix is the Schur complement of `schur`. All
of it, directions, trials, Sinkhorn sweeps in between, costs products with one
kernel; exponentials of the matrix are needed only to absorb, a few times a solve.

Globalisation: a Levenberg shift proportional to the error, an exact dual gain for
each trial step, shorter or longer ones (`trials`), and a Sinkhorn sweep after every
step, which never lowers the dual. Sources: Tang et al., ICLR 2024 (sweeps, then
Newton); Tang and Qiu, NeurIPS 2024, section on SSNS (shift mu |gradient| and ratio
test).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry.kernel import Kernel
from jaxsns.hessian.mixed_precision import Rough
from jaxsns.numerics import longest_step, machine_epsilon
from jaxsns.problem import dual
from jaxsns.problem.marginal import MarginalConstraint
from jaxsns.recording import recorder
from jaxsns.recording.history import StepKind
from jaxsns.recording.recorder import Recorder
from jaxsns.solvers.iteration import Counts
from jaxsns.solvers.newton import direction, line_search, ways
from jaxsns.solvers.newton.newton_options import NewtonOptions

FIRST_SWEEPS = 3  # before the first Newton step on a new kernel
FIRST_MU, LEAST_MU, GROW_MU = 0.025, 0.01, 4.0


class Point(NamedTuple):
    """A point of the semi-dual, with exact columns."""

    x: jax.Array
    y: jax.Array
    rows: jax.Array
    error: jax.Array


class Inner(NamedTuple):
    """Where the steps on one kernel stand."""

    point: Point
    contraction: jax.Array  # [] of the error by the last step
    mu: jax.Array
    newton: jax.Array  # [] bool: Newton has begun
    way: ways.Way
    idle: jax.Array  # [] int32
    least: jax.Array  # [] error reached on this kernel
    step: jax.Array
    counts: Counts
    recorder: Recorder | None = None
    ratio: jax.Array | None = None  # [] of a path that was asked for; NaN before


class Taken(NamedTuple):
    """What a step was, for the record."""

    kind: jax.Array  # [] int32, a StepKind
    shift: jax.Array  # [] of the matrix
    kept: jax.Array  # [] share of the plan's entries in the matrix


class Setting(NamedTuple):
    """Constants of the steps on one kernel."""

    kernel: Kernel
    rows: MarginalConstraint  # what is asked of the rows
    columns: MarginalConstraint
    gauge: jax.Array  # [] bool: a constant may be added to x
    total: jax.Array  # [] mass, to which rounding of gains is relative
    target: jax.Array  # [] error to reach
    trying: jax.Array | bool = False  # go on only where a path would cost more
    path: Callable[[], jax.Array] | None = None  # [] its ratio, 0 if there is none
    whole: jax.Array | bool = False  # [] bool: the first kernel, no row had vanished
    rough: Rough | None = None  # in float32, where that pays


def at(setting: Setting, x: jax.Array) -> Point:
    """Point of the semi-dual with the columns that fit x."""
    y = dual.columns_for(setting.kernel, setting.columns, x)
    rows = dual.rows_for(setting.kernel, x, y)
    wanted = setting.rows.at(x)
    error = jnp.sum(jnp.abs(rows - wanted)) / jnp.sum(wanted)
    return Point(x, y, rows, error)


def _gain(setting: Setting, old: Point, new: Point) -> jax.Array:
    """[] increase of the semi-dual, in mass; exact for exact columns."""
    rows = setting.rows.gain(old.x, new.x)
    return rows + setting.columns.fitted_gain(old.y, new.y)


def there(setting: Setting, point: Point, left: ArrayLike = 0.0) -> ways.Point:
    """What a direction has to know of a point."""
    return ways.Point(
        setting.kernel,
        jnp.exp(point.x),
        jnp.exp(point.y),
        point.rows,
        setting.columns.at(point.y),
        setting.rows.stiffness(point.x),
        setting.columns.stiffness(point.y),
        setting.gauge,
        point.error,
        left,
        setting.rough,
    )


@jax.named_scope("sweep")
def _sweep(setting: Setting, point: Point) -> Point:
    real = setting.rows.real
    ratio = setting.rows.at(point.x) / jnp.where(real, point.rows, 1)
    step = jnp.where(real, setting.rows.tau * jnp.log(ratio), 0)
    return at(setting, point.x + step)


@jax.named_scope("newton")
def _newton(options: NewtonOptions, setting: Setting, s: Inner) -> tuple[Inner, Taken]:
    """One direction, then trials of other lengths; no move if none is good."""
    old = s.point
    left = jnp.where(s.newton, s.contraction, 0)  # sweeps tell nothing of the model
    found = direction.find(
        options.linear_solver,
        there(setting, old, left),
        setting.rows.at(old.x) - old.rows,
        s.mu * old.error,
        setting.target,
        s.way,
    )
    dx, slope, curvature = found.dx, found.slope, found.curvature
    mean = dual.weighted(setting.rows.mass, dx) / setting.total
    dx = dx - jnp.where(setting.gauge & setting.rows.real, mean, 0)
    noise = 500 * machine_epsilon(dx.dtype) * setting.total

    def attempt(length):
        new = at(setting, old.x + length * dx)
        predicted = length * slope - 0.5 * length**2 * curvature
        gain = _gain(setting, old, new)
        errors = old.error, new.error
        rho = line_search.ratio(gain, predicted, noise, errors, setting.target)
        fine = jnp.isfinite(rho) & jnp.isfinite(new.error)
        return new, jnp.where(fine, gain, -jnp.inf), jnp.where(fine, rho, -1)

    length = longest_step(old.x, dx)
    room = lambda length: longest_step(old.x, length * dx) >= 1
    trial = line_search.search(attempt, room, length)
    new, rho = trial.point, trial.rho
    accepted = rho > 1e-4
    point = jax.tree.map(lambda u, v: jnp.where(accepted, u, v), new, old)
    harder = (trial.length < length) | (rho < 0.25)
    easier = ~harder & (rho > 0.75)
    lower = jnp.where(s.mu > LEAST_MU, s.mu / GROW_MU, 0)
    mu = jnp.where(harder, jnp.maximum(GROW_MU * s.mu, LEAST_MU), s.mu)
    mu = jnp.where(easier, lower, mu)
    counts = s.counts.plus(
        newton_steps=1,
        linear_steps=found.products,
        sparse_steps=found.sparse_products,
    )
    taken = Taken(found.kind, s.mu * old.error, found.kept)
    return s._replace(point=point, mu=mu, way=found.way, counts=counts), taken


def due(
    options: NewtonOptions, setting: Setting, begun: jax.Array, s: Inner
) -> jax.Array:
    """[] bool: whether a Newton step pays; `begun`: step at which the kernel was."""
    needed = jnp.log(setting.target / s.point.error) / jnp.log(s.contraction)
    slow = ~((s.contraction < 1) & (needed <= options.patience))
    return s.newton | (slow & (s.step - begun >= FIRST_SWEEPS))


def step_once(
    options: NewtonOptions,
    setting: Setting,
    begun: jax.Array,
    going: Callable[[Inner], jax.Array],
    s: Inner,
    sweeping: bool = False,
) -> Inner:
    """A Newton step if it is `due`, and a sweep; if `sweeping` it never is."""
    if sweeping:
        newton, (moved, taken) = s.newton, (s, _no_direction(s))
    else:
        newton = due(options, setting, begun, s)
        moved, taken = jax.lax.cond(
            newton,
            lambda t: _newton(options, setting, t),
            lambda t: (t, _no_direction(t)),
            s,
        )
    point = _sweep(setting, moved.point)
    fine = jnp.isfinite(point.error)
    point = jax.tree.map(lambda u, v: jnp.where(fine, u, v), point, moved.point)
    noise = 16 * machine_epsilon(point.error.dtype) * setting.total
    dead = _gain(setting, s.point, point) <= noise
    # Not of the last error: at the precision that falls by half by luck.
    dead = ~fine | (dead & (point.error > 0.9 * s.least))
    counts = moved.counts.plus(sweeps=1)
    noted = recorder.record_step(
        s.recorder,
        point.error,
        running=going(s),
        **taken._asdict(),
        passes=counts.passes,
        products=counts.linear_steps + counts.sparse_steps,
    )
    return moved._replace(
        point=point,
        contraction=point.error / s.point.error,
        newton=newton,
        idle=jnp.where(dead, s.idle + 1, 0),
        least=jnp.minimum(s.least, point.error),
        step=s.step + 1,
        counts=counts,
        recorder=noted,
    )


def _no_direction(s: Inner) -> Taken:
    one = jnp.ones_like(s.mu)
    return Taken(jnp.asarray(StepKind.SWEEP, jnp.int32), 0 * one, one)


def begin(
    options: NewtonOptions,
    point: Point,
    step: jax.Array,
    counts: Counts,
    record: Recorder | None = None,
    ratio: jax.Array | None = None,
) -> Inner:
    """State before the first step on a kernel."""
    n, m, dtype = point.x.shape[0], point.y.shape[0], point.x.dtype
    return Inner(
        point=point,
        contraction=jnp.ones_like(point.error),
        mu=jnp.asarray(FIRST_MU, dtype),
        newton=jnp.asarray(False),
        way=direction.unjudged(options.linear_solver, n, m, dtype),
        idle=jnp.asarray(0, jnp.int32),
        least=point.error,
        step=step,
        counts=counts,
        recorder=record,
        ratio=ratio,
    )
