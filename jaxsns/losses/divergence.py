"""Debiased Sinkhorn divergence, balanced and unbalanced.

    S(a, b) = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2,   entropy relative to a b^T

It is zero for equal measures and positive otherwise where exp(-C / epsilon) is
positive definite. Sources: Genevay, Peyre, Cuturi (2018); Feydy et al. (2019);
Sejourne, Feydy, Vialard, Trouve, Peyre (2019) for unbalanced measures, whose term
epsilon (m(a) - m(b))^2 / 2 cancels against the masses of the reference measures.
"""

import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import Dense, PointCloud
from jaxsns.geometry.costs import CostFunction
from jaxsns.numerics import forbidden_cost, machine_epsilon, safe_log
from jaxsns.problem import dual, marginal
from jaxsns.problem.inputs import as_float, make_problem
from jaxsns.problem.offsets import Offsets
from jaxsns.problem.problem import Problem
from jaxsns.problem.scales import moments
from jaxsns.recording import summary
from jaxsns.recording.history import History
from jaxsns.solution import NotConvergedError, Solution
from jaxsns.solver import solve
from jaxsns.status import Status, code, worst

TERMS = {
    "ab": "transport of a to b",
    "aa": "transport of a to itself",
    "bb": "transport of b to itself",
}
NAMES = tuple(TERMS)
OWN_ATTRIBUTES = {
    "matrix": "ab.plan(), a method: it forms [n, m] numbers",
    "reg_ot_cost": "value; debiased as it is, it needs no correction",
    "divergence": "value",
    "geom": "problem.geometry",
    "a": "problem.a",
    "b": "problem.b",
    "errors": "history, after sinkhorn_divergence(..., history=True)",
    "potentials": "ab.f and ab.g",
    "potential_a": "ab.f",
    "potential_b": "ab.g",
    "n_iters": "ab.counts",
    "static_b": "no such option: all three terms are always part of it",
}
SHARED = ("tolerance", "max_steps", "history")  # options of all three solves
WEIGHTS = (1.0, -0.5, -0.5)  # [D34]
ROUNDINGS = 4  # of the typical cost, by which a value of 0 may be negative [D35]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("value", "ab", "aa", "bb", "problem"),
    meta_fields=("names",),
)
@dataclasses.dataclass(frozen=True, repr=False)
class Divergence:
    """The value and the three solutions behind it.

    Attributes:
      value: [] in cost times mass; its derivatives of every order are implicit.
      ab: transport of a to b.
      aa: transport of a to itself.
      bb: transport of b to itself.
      problem: the clouds, masses, epsilon and rho that were given.
      names: what the caller calls the two clouds, for messages.
    """

    value: jax.Array
    ab: Solution
    aa: Solution
    bb: Solution
    problem: Problem
    names: tuple[str, str] = ("x", "y")

    @property
    def parts(self) -> tuple[Solution, Solution, Solution]:
        """(ab, aa, bb)."""
        return self.ab, self.aa, self.bb

    @property
    def distance(self) -> jax.Array:
        """[] square root of the value, in sqrt(cost times mass).

        0, with derivative 0, where the value is not positive.
        """
        value, positive = self.value, self.value > 0
        root = jnp.sqrt(jnp.where(positive, value, 1))
        return jnp.where(positive, root, jnp.where(jnp.isnan(value), value, 0))

    @property
    def status(self) -> jax.Array:
        """[] int32, the worst `Status` of the three."""
        return worst([part.status for part in self.parts])

    @property
    def converged(self) -> jax.Array:
        """[] bool: all three converged."""
        return self.status == code(Status.CONVERGED)

    @property
    def history(self) -> dict[str, History] | None:
        """Steps of the three solves by term, if solved with history=True, else None."""
        found = {k: getattr(self, k).history for k in NAMES}
        return None if any(x is None for x in found.values()) else found

    def __getattr__(self, name: str):
        """Answer to names of other libraries; what a `Solution` has, `ab` has."""
        if hasattr(Solution, name) or name in Solution.__dataclass_fields__:
            raise AttributeError(
                f"'Divergence' has no attribute {name!r}; its three solutions have it: "
                f"ab.{name}, aa.{name}, bb.{name}"
            )
        raise hints.attribute(self, name, hints.ATTRIBUTES | OWN_ATTRIBUTES)

    def __repr__(self) -> str:
        """Say the value and how the three solves went; no pass is made."""
        lines = [f"Divergence({self._verdict()})"]
        return "\n  ".join(lines + [f"{k}: {words}" for k, words in self._terms()])

    def _repr_html_(self) -> str:
        """Say the same in a table, for notebooks; no pass is made."""
        rows = [("verdict", self._verdict()), *self._terms()]
        return summary.table("Divergence", rows)

    def _verdict(self) -> str:
        if isinstance(self.value, Tracer):
            return "traced"
        if self.value.ndim:
            return f"batch={self.value.shape}, {summary.ends(self.status)}"
        failed: dict[str, list[str]] = {}
        for name, part in zip(NAMES, self.parts, strict=True):
            if not part.converged:
                failed.setdefault(Status(int(part.status)).name, []).append(name)
        ends = [f"{end} in {', '.join(names)}" for end, names in failed.items()]
        return f"value={float(self.value):.9g}, {'; '.join(ends) or 'CONVERGED'}"

    def _terms(self) -> list[tuple[str, str]]:
        """One line for each of the three solves."""
        lines = []
        for name, part in zip(NAMES, self.parts, strict=True):
            words = [f"{part.f.shape[-1]} x {part.g.shape[-1]}"]
            if isinstance(part.status, Tracer):
                words += ["traced"]
            elif self.value.ndim:
                words += [summary.ends(part.status)]
            else:
                words += [
                    Status(int(part.status)).name,
                    f"marginal error {float(part.error):.1e}",
                    summary.number(part.counts.sweeps, "sweep"),
                    summary.number(part.counts.newton_steps, "Newton step"),
                ]
            lines.append((name, ", ".join(words)))
        return lines

    def raise_if_failed(self) -> "Divergence":
        """Return self if all converged, else raise; outside `jit` only.

        Raises:
          NotConvergedError: with the name of the first term that failed: ab, aa or bb.
        """
        for name, part in zip(NAMES, self.parts, strict=True):
            try:
                part.raise_if_failed()
            except NotConvergedError as error:
                words = " ".join(f"{name}, {TERMS[name]}: {error}".split())
                raise NotConvergedError(summary.screen(words)) from None
        return self


def _with_reference(problem: Problem) -> Problem:
    """Move log a and log b into the costs: the entropy is then relative to a b^T.

    Balanced values change by terms that cancel in the divergence; not so where the
    marginals of the plan are not a and b.
    """
    if problem.balanced:
        return problem
    far = forbidden_cost(problem.dtype)

    def less(mass):
        # Infinity times the derivative of epsilon, 0 or not, would be NaN.
        log = safe_log(jnp.where(mass > 0, mass, 1))
        return jnp.where(mass > 0, -problem.epsilon * log, far)

    rows, columns = less(problem.a)[:, None], less(problem.b)[None, :]
    cost = jnp.minimum(problem.geometry.dense().entries + rows + columns, far)
    return dataclasses.replace(problem, geometry=Dense(cost))


Part = tuple[Problem, jax.Array, jax.Array]  # a problem and its potentials


def _surplus(part: Part) -> jax.Array:
    """[] mass that the plan has more than is wanted; zero at the solution."""
    (rows, columns), (a, b) = dual.marginals(*part), dual.target_masses(*part)
    return 0.5 * (jnp.sum(rows - a) + jnp.sum(columns - b))


def _gain(mass, rho, epsilon, new: jax.Array, own: Part) -> jax.Array:
    """[] what a side gains in the dual, between its own potential and a new one."""
    old = 0.5 * (own[1] + own[2])  # both are the same, up to the gauge
    step = jnp.where(mass > 0, new - old, 0) / epsilon
    target, zero = marginal.constraint(mass, rho, old, epsilon), jnp.zeros_like(step)
    # Half of what the plan's mass changes by belongs to this side.
    both = target.gain(zero, step) + target.fitted_gain(zero, step)
    return 0.5 * epsilon * both


def _differences(ab: Part, aa: Part, bb: Part) -> jax.Array:
    """[] value as a sum of differences of potentials, and 0 for rounding below 0.

    Values of nearly equal measures cancel: each is rounded by its own size. The
    differences are of the size of the result. A plan that misses its mass is allowed
    for, so the result depends on the errors of potentials in second order only.
    """
    problem, f, g = ab
    epsilon = problem.epsilon
    value = _gain(problem.a, problem.rho_a, epsilon, f, aa)
    value = value + _gain(problem.b, problem.rho_b, epsilon, g, bb)
    missed = _surplus(ab) - 0.5 * (_surplus(aa) + _surplus(bb))
    value = value - epsilon * missed
    # Costs themselves are rounded; their kernel is then not quite positive definite.
    costs = moments(problem.geometry, problem.a, problem.b)
    size = jnp.sqrt(costs.mean**2 + costs.std**2) + epsilon
    mass = 0.5 * (jnp.sum(problem.a) + jnp.sum(problem.b))
    rounding = ROUNDINGS * machine_epsilon(value.dtype) * size * mass
    return jnp.where((value < 0) & (value >= -rounding), 0, value)


@jax.custom_jvp
def _value(ab: Part, aa: Part, bb: Part) -> jax.Array:
    """[] value whose derivatives are those of the three values, by the envelope."""
    return _differences(ab, aa, bb)


@_value.defjvp
def _value_jvp(primals, tangents):
    slope = jnp.zeros_like(primals[0][1][0])
    for weight, part, tangent in zip(WEIGHTS, primals, tangents, strict=True):
        problem, *potentials = part
        function = lambda q, fg=tuple(potentials): dual.value(q, *fg)
        slope = slope + weight * jax.jvp(function, (problem,), (tangent[0],))[1]
    return _value(*primals), slope


@jax.jit
def _with_offsets(value: jax.Array, problem: Problem, offsets: Offsets) -> jax.Array:
    """[] value with what the costs between the clouds lost; 0 for rounding below 0."""
    value = value + offsets.value(problem.a, problem.b)
    size = jnp.max(jnp.abs(offsets.rows)) + jnp.max(jnp.abs(offsets.columns))
    rounding = ROUNDINGS * machine_epsilon(value.dtype) * size * jnp.sum(problem.a)
    below = jnp.where((value < 0) & (value >= -rounding), value, 0)
    return value - jax.lax.stop_gradient(below)


@jax.jit
def _cause(epsilon: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """[] status: NONFINITE where costs that are not finite made epsilon NaN."""
    spoilt = jnp.isnan(epsilon) & (other == code(Status.NONFINITE))
    return jnp.where(spoilt, code(Status.NONFINITE), own)


def _with_cause(part: Solution, ab: Solution) -> Solution:
    """Solution with the status of `_cause`."""
    status = _cause(part.epsilon, part.status, ab.status)
    return dataclasses.replace(part, status=status)


# Compiled, since one by one its operations take longer to compile for a new shape.
_compiled_value = jax.jit(_value)


@hints.answered
def sinkhorn_divergence(
    x: ArrayLike,
    y: ArrayLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    cost: str | CostFunction = "sqeuclidean",
    epsilon: ArrayLike | None = None,
    rho: ArrayLike | None = None,
    relative_to: str | None = None,
    **options: Any,
) -> Divergence:
    """Divergence of two weighted point clouds.

    Args:
      x: [n, d] points.
      y: [m, d] points.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0; the same total unless rho is given.
      cost: a symmetric cost of two points, as in `PointCloud`.
      epsilon: [] regularisation > 0, one for the three problems; None: 0.05 of the
        standard deviation of the costs between x and y. That grows with the distance
        between x and y: far apart the plan is close to the product of the masses.
      rho: [] weight > 0 of KL penalties of both marginals, in units of cost;
        infinite or None: balanced.
      relative_to: epsilon is a multiple of this scale of the costs between x and y;
        "within", the spread of the clouds, does not grow with their distance.
      **options: tolerance, method, max_steps, history, progress as in `solve`. `method`
        and `progress` apply to the solve of a to b; the other two use the symmetric
        method.

    Returns:
      The `Divergence`; look at `.converged`. Differentiable in x, y, a, b, epsilon
      and rho, to any order. Its value is computed from differences of potentials. A
      negative one within rounding (4 machine epsilons of the root mean square cost) is
      returned as 0. A larger one is returned as it is: the solves did not converge, or
      exp(-cost / epsilon) is not positive definite.

    Raises:
      TypeError, ValueError: as `make_problem`; a rho that is no scalar; a batch of
        clouds, which `transport_loss` takes.

    Cost: one solve and two of a few passes with a product a step.
    """
    for name, points in (("x", x), ("y", y)):
        if jnp.ndim(points) > 2:
            raise ValueError(
                f"{name} must have shape [points, dimension]; got {jnp.shape(points)} "
                "(a batch: jaxsns.transport_loss, or jax.vmap of this function)"
            )
    if rho is not None and as_float("rho", rho).shape != ():
        raise ValueError(f"rho must be a scalar; got shape {jnp.shape(rho)}")
    if "scale_cost" in options:
        raise TypeError(
            "scale_cost is no option of a divergence: give relative_to, or scale the "
            "points"
        )
    problem = make_problem(
        PointCloud(cast(jax.Array, x), cast(jax.Array, y), cost),
        a,
        b,
        epsilon=epsilon,
        rho_a=rho,
        rho_b=rho,
        relative_to=relative_to,
    )
    cloud = problem.geometry
    assert isinstance(cloud, PointCloud)

    def itself(points, mass, weight):
        geometry = dataclasses.replace(cloud, x=points, y=points)
        return Problem(geometry, mass, mass, problem.epsilon, weight, weight)

    own = {k: v for k, v in options.items() if k in SHARED}
    ab = solve(_with_reference(problem), **options)
    aa = solve(
        _with_reference(itself(cloud.x, problem.a, problem.rho_a)),
        method="symmetric",
        **own,
    )
    bb = solve(
        _with_reference(itself(cloud.y, problem.b, problem.rho_b)),
        method="symmetric",
        **own,
    )
    aa, bb = _with_cause(aa, ab), _with_cause(bb, ab)
    value = _compiled_value(ab.core, aa.core, bb.core)
    if ab.reduced is not None:
        value = _with_offsets(value, problem, ab.reduced.offsets)
    return Divergence(value, ab, aa, bb, problem)
