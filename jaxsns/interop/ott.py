"""OTT-JAX on our solver: its problems in, its own output type out.

`Solver` is called as OTT's `Sinkhorn` is; `in_place_of_sinkhorn` lets what OTT builds
on its solver (divergences, soft sorting, segments, Gromov-Wasserstein) run on it. Its
quadratic solvers also take it: `GromovWasserstein(linear_solver=Solver())`.
Needs ott-jax, which is imported when a solver is called and not before.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense, Grid, PointCloud
from jaxsns.numerics import safe_log
from jaxsns.problem import dual
from jaxsns.problem.inputs import make_problem
from jaxsns.problem.problem import Problem
from jaxsns.solution import Solution
from jaxsns.solver import solve

DEFAULT_THRESHOLD = 1e-3  # of OTT's `Sinkhorn` [D13]


def _module(name: str) -> Any:
    return importlib.import_module(f"ott.{name}")


@dataclasses.dataclass(frozen=True)
class _Cost:
    """A cost function of OTT without arrays, as a static one that hashes."""

    structure: Any

    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.tree.unflatten(self.structure, [])(x, y)


def _cost(cost_fn: Any, stored: bool) -> str | _Cost | None:
    """Our name of a cost, or a static function of it, or None."""
    costs = _module("geometry.costs")
    for kind, name in (("SqEuclidean", "sqeuclidean"), ("Euclidean", "euclidean")):
        if type(cost_fn) is getattr(costs, kind):
            return name
    leaves, structure = jax.tree.flatten(cost_fn)
    if stored or leaves:
        return None
    try:
        hash(structure)
    except TypeError:
        return None
    return _Cost(structure)


def _geometry(geometry: Any) -> Dense | Grid | PointCloud:
    if isinstance(geometry, _module("geometry.pointcloud").PointCloud):
        online = geometry.is_online
        cost = _cost(geometry.cost_fn, stored=not online)
        if cost is not None:
            scale = geometry._scale_cost
            plain = not isinstance(scale, str | jax.Array) and scale == 1.0
            factor = None if plain else geometry.inv_scale_cost
            streamed = True if online else None
            return PointCloud(geometry.x, geometry.y, cost, factor, streamed)
    if isinstance(geometry, _module("geometry.grid").Grid):
        return Grid(matrices=tuple(g.cost_matrix for g in geometry.geometries))
    return Dense(geometry.cost_matrix)


def _masses(problem: Any) -> tuple[Any, Any]:
    """Masses; totals of half precision that differ by its rounding are made equal."""
    if jnp.finfo(problem.dtype).bits >= 32:
        return problem.a, problem.b
    a, b = problem.a.astype(jnp.float32), problem.b.astype(jnp.float32)
    ratio = jnp.sum(a) / jnp.sum(b)
    near = jnp.abs(ratio - 1) <= 8 * jnp.finfo(problem.dtype).eps
    return a, jnp.where(near & problem.is_balanced, ratio, 1) * b


def _problem(problem: Any) -> Problem:
    epsilon = jnp.asarray(problem.epsilon)

    def rho(tau):
        return None if tau == 1.0 else epsilon * tau / (1 - tau)

    return make_problem(
        _geometry(problem.geom),
        *_masses(problem),
        epsilon=epsilon,
        rho_a=rho(problem.tau_a),
        rho_b=rho(problem.tau_b),
    )


def _sum(mass: jax.Array, terms: jax.Array) -> jax.Array:
    """Sum of mass times terms; nothing where there is no mass."""
    real = mass > 0
    return jnp.sum(jnp.where(real, mass * jnp.where(real, terms, 0), 0))


def _balanced_cost(solution: Solution) -> jax.Array:
    """[] our value with epsilon KL(P | a b^T) in place of epsilon sum P (log P - 1).

    For equal marginals that differs by what does not depend on the plan, and keeps the
    derivative of the value: no linear solve for the first, the right second.
    """
    p = solution.problem
    entropies = _sum(p.a, safe_log(p.a)) + _sum(p.b, safe_log(p.b))
    return solution.value + p.epsilon * (jnp.sum(p.a) * jnp.sum(p.b) - entropies)


def _unbalanced_cost(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    """[] OTT's number, `ott.solvers.linear.sinkhorn.compute_kl_reg_cost`.

    It takes epsilon log a out of f before the penalty, though its iteration and ours
    solve the problem in which the penalty sees f. So it is not stationary at the
    solution, and its derivative needs that of the potentials.
    """

    def side(mass, potential, rho):
        # Masked twice: infinities, and then what became of them, have no derivative.
        log = safe_log(jnp.where(mass > 0, mass, 1))
        h = jnp.where(mass > 0, potential, 0) - problem.epsilon * log
        return _sum(mass, h if rho is None else -rho * jnp.expm1(-h / rho))

    rows, _ = dual.marginals(problem, f, g)
    excess = jnp.sum(problem.a) * jnp.sum(problem.b) - jnp.sum(rows)
    left = side(problem.a, f, problem.rho_a)
    return left + side(problem.b, g, problem.rho_b) + problem.epsilon * excess


def _error(problem: Problem, f: jax.Array, g: jax.Array, p: int) -> jax.Array:
    """[] p-norms of what the rows and what the columns are off, added."""
    marginals, wanted = dual.marginals(problem, f, g), dual.target_masses(problem, f, g)
    off = [jnp.abs(x - y) for x, y in zip(marginals, wanted, strict=True)]
    rows, columns = (jnp.sum(x**p) ** (1 / p) for x in off)
    return rows + columns


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("threshold",),
    meta_fields=(
        "norm_error",
        "max_iterations",
        "method",
        "lse_mode",
        "recenter_potentials",
    ),
)
@dataclasses.dataclass(frozen=True)
class Solver:
    """Our solver where OTT takes a `Sinkhorn`: `Solver()(LinearProblem(geom, a, b))`.

    Attributes:
      threshold: [] L1 error of both marginals at which to stop, in mass (OTT's is that
        of one marginal, and never larger); None: solved as well as `solve` does by
        default, and `converged` is meant by OTT's default, 1e-3.
      norm_error: p of the norm in which `errors` and `converged` are meant.
      max_iterations: limit of sweeps; None: that of `solve`.
      method: as in `solve`.
      lse_mode: False: an `init` holds scalings, exp(f / epsilon), and not potentials.
      recenter_potentials: f with mean 0 over its atoms with mass, as OTT does it;
        otherwise <a, f> = <b, g>. Unbalanced potentials have no gauge.
    """

    threshold: Any = None
    norm_error: int = 1
    max_iterations: int | None = None
    method: Any = "auto"
    lse_mode: bool = True
    recenter_potentials: bool = False

    @property
    def outer_iterations(self) -> int:
        """Length of `errors`, for which OTT's quadratic solvers ask: 1."""
        return 1

    def __call__(self, problem: Any, init: Any = None, *, rng: Any = None) -> Any:
        """Solve a `LinearProblem`.

        Args:
          problem: ott's. Its point clouds with squared Euclidean and Euclidean costs
            stay points, with a batch_size those with other costs without arrays do too,
            and are streamed; a `Grid` (up to 3 axes) stays one; of other geometries the
            cost matrix is formed. tau is rho / (rho + epsilon). A schedule of epsilon
            is left aside: ours is chosen here.
          init: (f [n], g [m]) to start from.
          rng: not needed; OTT passes it on to its initialisers.

        Returns:
          ott's `SinkhornOutput` in the dtype of the geometry. `potentials` have all our
          derivatives (both modes, any order, zero at atoms without mass), and so has
          what OTT computes from them. `reg_ot_cost` is OTT's number; balanced, its
          first derivative needs no linear solve. `errors` [1] is OTT's error of what
          is returned, `converged` whether it is below the threshold, `n_iters` the
          number of sweeps, of which one follows each Newton step.

        Raises:
          ModuleNotFoundError: ott-jax is not installed. ValueError: what `solve`
            refuses, so unequal masses of a balanced problem, where OTT iterates.

        Cost: that of `solve`, and a pass for the error.
        """
        sinkhorn = _module("solvers.linear.sinkhorn")
        own = _problem(problem)
        dtype = problem.dtype
        tolerance, threshold = None, self.threshold
        if threshold is None:
            threshold = DEFAULT_THRESHOLD
        else:
            tolerance = threshold / jnp.maximum(jnp.sum(own.a), jnp.sum(own.b))
            tolerance = jax.lax.stop_gradient(tolerance)
        if init is not None and not self.lse_mode:
            init = tuple(own.epsilon * jnp.log(u) for u in init)
        solution = solve(
            own,
            tolerance=tolerance,
            method=self.method,
            init=init,
            max_steps=self.max_iterations,
        )
        f, g = solution.f, solution.g
        if self.recenter_potentials and own.balanced:
            real = own.a > 0
            shift = jnp.sum(jnp.where(real, f, 0)) / jnp.sum(real)
            f, g = f - shift, g + shift
        error = _error(own, *jax.lax.stop_gradient((f, g)), self.norm_error)
        if own.balanced:
            cost = _balanced_cost(solution)
        else:
            cost = _unbalanced_cost(own, f, g)
        return sinkhorn.SinkhornOutput(
            (f.astype(dtype), g.astype(dtype)),
            errors=error[None].astype(dtype),
            reg_ot_cost=cost.astype(dtype),
            ot_prob=problem,
            threshold=jnp.asarray(threshold, dtype),
            converged=error <= threshold,
            inner_iterations=solution.counts.sweeps,
        )


# How OTT iterates, which changes no answer of ours.
_WITHOUT_MEANING = frozenset(
    {
        "anderson",
        "initializer",
        "inner_iterations",
        "min_iterations",
        "momentum",
        "parallel_dual_updates",
        "use_danskin",
    }
)


def _for_sinkhorn(**options: Any) -> Solver:
    """Return a `Solver` for the arguments of `Sinkhorn`; refuse what it cannot do."""
    if options.pop("progress_fn", None) is not None:
        raise ValueError("progress_fn is not called by jaxsns; leave it out")
    if options.pop("implicit_diff", True) is None:
        raise ValueError(
            "implicit_diff=None asks for unrolled derivatives; this solver has "
            "implicit ones only"
        )
    known = {field.name for field in dataclasses.fields(Solver)}
    for name in set(options) - known:
        if name not in _WITHOUT_MEANING:
            raise TypeError(f"Sinkhorn has no argument {name!r}")
        del options[name]
    return Solver(**options)


@contextlib.contextmanager
def in_place_of_sinkhorn(**options: Any) -> Iterator[None]:
    """Let OTT use `Solver` wherever it makes a `Sinkhorn`, while this is open.

        with jaxsns.ott.in_place_of_sinkhorn():
            value, _ = sinkhorn_divergence.sinkdiv(x, y, epsilon=0.1)

    Args:
      **options: of `Solver`, for what OTT's caller does not say.

    Raises:
      ModuleNotFoundError: ott-jax is not installed. ValueError, inside: a
        `progress_fn`, or `implicit_diff=None` (derivatives of the loop).

    What says how OTT iterates (momentum, Anderson, schedules, inner and least numbers
    of iterations, initialisers) has no meaning here and is dropped. A name of yours
    (`from ott.solvers.linear.sinkhorn import Sinkhorn`) stays OTT's, silently: call
    `sinkhorn.Sinkhorn` or `Solver`. Functions that were
    compiled before or inside keep the solver they were compiled with. Not for threads:
    it is OTT's module that changes. Low-rank solvers stay OTT's.
    """
    sinkhorn = _module("solvers.linear.sinkhorn")
    before = sinkhorn.Sinkhorn
    names = list(inspect.signature(before).parameters)

    def made(*args: Any, **given: Any) -> Solver:
        return _for_sinkhorn(**options | dict(zip(names, args, strict=False)) | given)

    sinkhorn.Sinkhorn = made
    try:
        yield
    finally:
        sinkhorn.Sinkhorn = before
