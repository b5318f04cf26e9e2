"""What a solve returns, one type for all methods."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import hints
from jaxsns.implicit import potentials as implicit
from jaxsns.numerics import machine_epsilon
from jaxsns.problem import arguments, dual, gauge, marginal
from jaxsns.problem.offsets import Offsets, Reduced
from jaxsns.problem.problem import Problem
from jaxsns.recording import summary
from jaxsns.recording.counts import Counts
from jaxsns.recording.history import History
from jaxsns.status import Status, code, describe


class NotConvergedError(RuntimeError):
    """Raised by `Solution.raise_if_failed`."""


def require_converged(status: jax.Array, error: jax.Array) -> None:
    """Raise `NotConvergedError` unless every element converged; outside `jit` only."""
    if isinstance(status, Tracer):
        raise TypeError(
            "raise_if_failed works outside jit only; inside, use solution.converged"
        )
    ends = np.atleast_1d(np.asarray(status)).ravel()
    errors = np.atleast_1d(np.asarray(error)).ravel()
    bad = np.flatnonzero(ends != code(Status.CONVERGED))
    if bad.size:
        first = bad[0]
        words = f"error {errors[first]:.2e}, {describe(int(ends[first]))}"
        if ends.size > 1:
            words = f"{bad.size} of {ends.size} solves; element {first}: {words}"
        raise NotConvergedError(summary.screen(f"not converged: {words}"))


class Conditioning(NamedTuple):
    """What `Solution.conditioning` returns; one number for each batch element."""

    gap: jax.Array  # [...] 1 - sigma^2, in (0, 1]
    error: jax.Array  # [...] expected error of potentials over epsilon, and relative
    # error of derivatives in the masses; above 1 they mean nothing


def _value(problem: Problem, f: jax.Array, g: jax.Array, *offsets: Offsets):
    value = implicit.optimal_value(problem, f, g)
    return sum((x.value(problem.a, problem.b) for x in offsets), value)


def _transport_cost(problem: Problem, f: jax.Array, g: jax.Array, *offsets: Offsets):
    low_f, low_g = dual.finite(problem, f, g)
    geometry = problem.geometry.formed()
    total = geometry.transport_cost(low_f, low_g, problem.epsilon)
    for x in offsets:
        total = total + x.value(*dual.marginals(problem, f, g))
    return total


def _primal(problem: Problem, f: jax.Array, g: jax.Array, *offsets: Offsets):
    # epsilon log P = f + g - C turns <C, P> + epsilon <P, log P> into <f + g, P>.
    rows, columns = dual.marginals(problem, f, g)
    linear = gauge.weighted(rows, f) + gauge.weighted(columns, g)
    paid = marginal.penalty(problem.a, problem.rho_a, rows)
    paid += marginal.penalty(problem.b, problem.rho_b, columns)
    value = linear - problem.epsilon * jnp.sum(rows) + paid
    return sum((x.value(rows, columns) for x in offsets), value)


def _apply(axis: int, problem: Problem, f: jax.Array, g: jax.Array, v: jax.Array):
    f, g = dual.finite(problem, f, g)
    return problem.geometry.formed().plan_times(f, g, problem.epsilon, v, axis)


def _barycentric(axis: int, problem: Problem, f: jax.Array, g: jax.Array, v: jax.Array):
    # The masses come out of the same pass, as products with ones.
    table = v[:, None] if v.ndim == 1 else v
    # Padded: jax 0.12 cannot concatenate a batch on Explicit axes and a constant.
    table = jnp.pad(table, ((0, 0), (0, 1)), constant_values=1)
    sums = _apply(axis, problem, f, g, table)
    mass = sums[:, -1:]
    means = sums[:, :-1] / jnp.where(mass > 0, mass, 1)
    return means.reshape(mass.shape[:1] + v.shape[1:])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _lanes(function: Callable, depth: int, *args):
    for _ in range(depth):
        function = jax.vmap(function)
    return function(*args)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=(
        "problem",
        "f",
        "g",
        "error",
        "tolerance",
        "status",
        "counts",
        "history",
        "reduced",
    ),
    meta_fields=("method",),
)
@dataclasses.dataclass(frozen=True, repr=False)
class Solution:
    """Result of `solve`: dual potentials and status; plan, costs and maps on request.

    Attributes:
      problem: what was solved; `problem.epsilon` is the epsilon really used.
      f: [n] row potentials, in units of cost; -inf where there is no mass.
      g: [m] column potentials. Gauge: <a, f> = <b, g>.
      error: [] L1 error of both marginals over the mass to be moved, of f and g; where
        it is within the tolerance it may be a bound of that.
      tolerance: [] error at which a solve counts as converged: what was asked for, or
        what the dtype can do for this problem if nothing was.
      status: [] int32, a `Status`.
      counts: work done, see `Counts`.
      method: name of the method.
      history: its steps, if it was solved with history=True, else None.
      reduced: the problem without offsets of its costs, with its potentials; None if
        there are none. `error` is that of these, since offsets take digits.

    f and g carry the derivative of the exact solution (implicit); so does all that
    is computed from them. The value needs no linear solve for its first derivative.
    A solution that came out of `vmap` answers for all its lanes at once.
    """

    problem: Problem
    f: jax.Array
    g: jax.Array
    error: jax.Array
    tolerance: jax.Array
    status: jax.Array
    counts: Counts
    method: str
    history: History | None = None
    reduced: Reduced | None = None

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    @property
    def core(self) -> tuple[Problem, jax.Array, jax.Array]:
        """Problem and potentials that all results are computed from.

        They have the plan of `problem`, `f` and `g`, but without offsets of the costs,
        which would take digits.
        """
        if self.reduced is None:
            return self.problem, self.f, self.g
        return self.reduced.problem, self.reduced.f, self.reduced.g

    def _each(self, function: Callable, *args: Any):
        return _lanes(function, self.f.ndim - 1, *self.core, *args)

    def _offsets(self) -> tuple[Offsets, ...]:
        return () if self.reduced is None else (self.reduced.offsets,)

    @property
    def converged(self) -> jax.Array:
        """[] bool: the error is at most the tolerance."""
        return self.status == code(Status.CONVERGED)

    @property
    def epsilon(self) -> jax.Array:
        """[] regularisation used, in units of cost."""
        return self.problem.epsilon

    @property
    def value(self) -> jax.Array:
        """[] <C, P> + epsilon sum P (log P - 1) + penalties, in cost times mass.

        Penalties are rho_a KL(P 1 | a) and rho_b KL(P^T 1 | b) if asked for.
        Evaluated as the dual, so its error is of second order in `error` and it
        never exceeds the optimum by more than rounding. One pass.
        """
        return self._each(_value, *self._offsets())

    @property
    def dual_value(self) -> jax.Array:
        """[] the dual objective; the same number as `value`."""
        return self.value

    @property
    def primal_value(self) -> jax.Array:
        """[] <C, P> + epsilon sum P (log P - 1) + penalties of the plan as it is.

        One pass. The plan meets the marginals only up to `error`, so this is no bound.
        """
        return self._each(_primal, *self._offsets())

    @property
    def gap(self) -> jax.Array:
        """[] primal minus dual value: zero at the solution."""
        return self.primal_value - self.value

    @property
    def transport_cost(self) -> jax.Array:
        """[] <C, P>, in cost times mass, without the entropy. One pass."""
        return self._each(_transport_cost, *self._offsets())

    @property
    def marginal_errors(self) -> tuple[jax.Array, jax.Array]:
        """([], []) L1 error of the row and of the column marginal. One pass."""
        return self._each(dual.marginal_errors)

    def plan(self) -> jax.Array:
        """[n, m] the plan exp((f + g - C) / epsilon), in mass. O(n m) memory."""
        return self._each(dual.plan)

    def marginals(self) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of the plan. One pass."""
        return self._each(dual.marginals)

    def apply(self, v: jax.Array, axis: int = 1) -> jax.Array:
        """Plan times v ([m] or [m, k] -> [n, ...]); axis=0: its transpose times v."""
        return self._each(_APPLY[_axis(axis)], self._operand(v, axis))

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of `points` [m, d] under each row of the plan, [n, d].

        axis=0: mean of points [n, d] under each column. Atoms without mass get 0.
        """
        return self._each(_BARYCENTRIC[_axis(axis)], self._operand(points, axis))

    def _operand(self, v: jax.Array, axis: int) -> jax.Array:
        v = jnp.asarray(v)
        depth = self.f.ndim - 1
        size = (self.g if axis == 1 else self.f).shape[-1]
        if v.ndim not in (depth + 1, depth + 2) or v.shape[depth] != size:
            letter = "m" if axis == 1 else "n"
            lanes = "".join(f"{k}, " for k in self.f.shape[:-1])
            hint = "; the same for the whole batch: jnp.broadcast_to" if lanes else ""
            raise ValueError(
                f"the operand must have shape [{lanes}{letter}] or "
                f"[{lanes}{letter}, k] with {letter} = {size} for axis={axis}; "
                f"got {v.shape}{hint}"
            )
        return v.astype(self.f.dtype)

    def conditioning(self) -> Conditioning:
        """How much errors of the plan grow in potentials and in derivatives.

        The marginal error bounds the errors of the plan, of values, and of derivatives
        in costs and points. It does not bound those of the potentials and of
        derivatives in the masses: they are larger by 1 / gap, where gap = 1 - sigma^2
        and sigma is the second singular value of the plan scaled to unit marginals. A
        plan that nearly splits into blocks has a small gap.

        Cost: one pass and at most 48 products with the plan; streamed, 48 passes.
        Source: the normal form of the Newton matrix, see docs/mathematics.md.
        """
        held = jax.lax.stop_gradient(self)
        gap = held._each(implicit.spectral_gap)
        unit = machine_epsilon(self.f.dtype)
        error = jnp.maximum(held.error, unit) / gap
        return Conditioning(gap, error)

    def raise_if_failed(self) -> "Solution":
        """Return self if every batch element converged, else raise `NotConvergedError`.

        Outside `jit` only: a traced status cannot raise.
        """
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """Say on one screen what was solved and how it went; no pass is made."""
        head = f"Solution({self._sizes()}, method={self.method!r}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.f.ndim > 1:
            worst = float(np.max(np.asarray(self.error)))
            found = summary.ends(self.status)
            return summary.screen(
                f"{head}, batch={self.f.shape[:-1]}, {found}, worst error={worst:.2e})"
            )
        head = f"{head}, epsilon={float(self.epsilon):.4g})"
        status = describe(int(self.status))
        return summary.screen(head, status, self._errors(), self._work())

    def _repr_html_(self) -> str:
        """Say the same in a table, for notebooks; no pass is made."""
        return self._table("Solution")

    def _table(self, title: str) -> str:
        if isinstance(self.status, Tracer):
            return summary.table(title, [("problem", f"{self._sizes()}, traced")])
        if self.f.ndim > 1:
            rows = [
                ("status", summary.ends(self.status)),
                ("problem", f"{self._sizes()}, batch {self.f.shape[:-1]}"),
                ("result", f"worst error {float(np.max(np.asarray(self.error))):.2e}"),
            ]
            return summary.table(title, rows)
        rows = [
            ("status", describe(int(self.status))),
            ("problem", f"{self._sizes()}, epsilon {float(self.epsilon):.4g}"),
            ("result", self._errors()),
            ("work", f"{self._work()} (method {self.method!r})"),
        ]
        return summary.table(title, rows)

    def _sizes(self) -> str:
        return f"{self.f.shape[-1]} x {self.g.shape[-1]}, {self.f.dtype}"

    def _errors(self) -> str:
        error, tolerance = float(self.error), float(self.tolerance)
        return f"marginal error {error:.2e}, tolerance {tolerance:.1e}"

    def _work(self) -> str:
        c = self.counts
        return (
            f"{summary.number(c.sweeps, 'sweep')}, "
            f"{summary.number(c.newton_steps, 'Newton step')}, "
            f"{summary.number(c.linear_steps, 'linear-solver step')}, "
            f"{summary.number(c.passes, 'pass', 'passes')}"
        )


_APPLY = {axis: functools.partial(_apply, axis) for axis in (0, 1)}
_BARYCENTRIC = {axis: functools.partial(_barycentric, axis) for axis in (0, 1)}


def _axis(axis: int) -> int:
    if axis not in (0, 1):
        raise ValueError(f"axis must be 0 or 1; got {axis!r}")
    return axis


def one_solution(solution: Any) -> Solution:
    """Solution of a single problem, of real pairs if it is partial; refuse others."""
    if not hasattr(solution, "real_pairs") and not isinstance(solution, Solution):
        raise TypeError(
            "solution must be a jaxsns.Solution or PartialSolution; "
            f"got {type(solution).__name__}"
        )
    if solution.f.ndim != 1:
        raise ValueError(
            f"solution must be of one problem; got a batch {solution.f.shape[:-1]} "
            "(use jax.vmap over this function)"
        )
    return solution if isinstance(solution, Solution) else solution.real_pairs()


def core_potentials(solution: Solution) -> tuple[Problem, jax.Array, jax.Array]:
    """(problem, [n], [m]) of `Solution.core`, with finite stand-ins for no mass.

    All NaN if the solution has a NaN: masses that are NaN themselves look like no mass,
    so the stand-in alone would hide that there is no answer.
    """
    problem, f, g = solution.core
    known = ~jnp.any(jnp.isnan(f)) & ~jnp.any(jnp.isnan(g))
    f, g = dual.finite(problem, f, g)
    return problem, arguments.nan_unless(known, f), arguments.nan_unless(known, g)
