"""What `solve_sparse` returns."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import hints
from jaxsns.numerics import matmul
from jaxsns.problem import arguments, marginal
from jaxsns.problem.problem import Problem
from jaxsns.recording import summary
from jaxsns.solution import require_converged
from jaxsns.sparse import derivative, dual
from jaxsns.status import Status, code, describe

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO


def _plan(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    # Masses that are NaN look like no mass, and would give a plan.
    known = ~jnp.any(jnp.isnan(f)) & ~jnp.any(jnp.isnan(g))
    return arguments.nan_unless(known, dual.plan(problem, f, g))


def _primal(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    mass = _plan(problem, f, g)
    paid = marginal.penalty(problem.a, problem.rho_a, jnp.sum(mass, axis=1))
    paid += marginal.penalty(problem.b, problem.rho_b, jnp.sum(mass, axis=0))
    return (
        _transport_cost(problem, f, g) + problem.epsilon / 2 * jnp.sum(mass**2) + paid
    )


def _transport_cost(problem: Problem, f: jax.Array, g: jax.Array) -> jax.Array:
    mass = _plan(problem, f, g)
    return jnp.sum(jnp.where(mass == 0, 0, problem.geometry.dense().entries) * mass)


def _barycentric(problem, f, g, points: jax.Array, axis: int) -> jax.Array:
    mass = _plan(problem, f, g)
    mass = mass if axis == 1 else mass.T
    total = jnp.sum(mass, axis=1)
    means = matmul(mass / jnp.where(total > 0, total, 1)[:, None], points)
    return means


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class SparseSolution:
    """Solution of `solve_sparse`: potentials, how good they are, and the sparse plan.

    Attributes:
      problem: what was solved; `gamma` is `problem.epsilon`.
      f: [n] row potentials, in units of cost; -inf where there is no mass.
      g: [m] column potentials. Gauge: <a, f> = <b, g>.
      error: [] L1 error of both marginals over the mass to be moved.
      tolerance: [] error at which the solve counts as converged.
      status: [] int32, a `Status`.
      steps: [] int32 Newton steps.

    f and g carry the derivative of the exact solution (implicit); so does all that is
    computed from them. A solution out of `vmap` answers for all its lanes at once.
    """

    problem: Problem
    f: jax.Array
    g: jax.Array
    error: jax.Array
    tolerance: jax.Array
    status: jax.Array
    steps: jax.Array

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name, hints.ATTRIBUTES | hints.UNREGULARISED)

    def _each(self, function: Callable, *args: Any):
        for _ in range(self.f.ndim - 1):
            function = jax.vmap(function)
        return function(self.problem, self.f, self.g, *args)

    @property
    def converged(self) -> jax.Array:
        """[] bool: the error is at most the tolerance."""
        return self.status == code(Status.CONVERGED)

    @property
    def gamma(self) -> jax.Array:
        """[] regularisation used, in units of cost over mass."""
        return self.problem.epsilon

    @property
    def value(self) -> jax.Array:
        """[] <C, P> + gamma/2 sum P^2 + penalties, evaluated as the dual.

        Its first derivative needs no linear solve.
        """
        return self._each(derivative.optimal_value)

    @property
    def primal_value(self) -> jax.Array:
        """[] <C, P> + gamma/2 sum P^2 + penalties of the plan as it is."""
        return self._each(_primal)

    @property
    def gap(self) -> jax.Array:
        """[] primal minus dual value: zero at the solution."""
        return self.primal_value - self.value

    @property
    def transport_cost(self) -> jax.Array:
        """[] <C, P>, in cost times mass."""
        return self._each(_transport_cost)

    @property
    def nonzero(self) -> jax.Array:
        """[] int32 entries of the plan that are not zero."""
        count = lambda *args: jnp.sum(_plan(*args) > 0, dtype=jnp.int32)
        return self._each(count)

    def plan(self) -> jax.Array:
        """[n, m] the plan [f + g - C]_+ / gamma, in mass, with exact zeros."""
        return self._each(_plan)

    def plan_bcoo(self, nse: int | None = None) -> "BCOO":
        """[n, m] the plan as a sparse matrix of `jax.experimental.sparse`.

        Args:
          nse: number of stored entries, static; None: as many as there are, outside
            `jit` only. Spare entries are zeros out of bounds.

        Returns:
          A BCOO matrix; its data can be differentiated. Where the plan has more than
          nse entries, the data are NaN.

        Raises:
          TypeError: without nse inside `jit`.
          ValueError: too small an nse outside it; a batch (use `jax.vmap`).
        """
        from jax.experimental.sparse import BCOO  # half the time of importing all of us

        if self.f.ndim != 1:
            raise ValueError(
                f"plan_bcoo is of one problem; got a batch {self.f.shape[:-1]} "
                "(use jax.vmap over it)"
            )
        mass = self.plan()
        count = jnp.sum(mass > 0)
        if nse is None:
            if isinstance(count, Tracer):
                raise TypeError("nse must be given inside jit: it is a shape")
            nse = max(int(count), 1)
        nse = arguments.as_count("nse", nse)
        fits = arguments.holds(
            lambda xp, k: k <= nse,
            lambda: f"nse must be at least {count}, the entries of the plan; got {nse}",
            count,
        )
        rows, columns = jnp.nonzero(mass > 0, size=nse, fill_value=mass.shape)
        data = mass.at[rows, columns].get(mode="fill", fill_value=0)
        indices = jnp.stack([rows, columns], axis=1)
        return BCOO(
            (arguments.nan_unless(fits, data), indices),
            shape=mass.shape,
            indices_sorted=True,
            unique_indices=True,
        )

    def marginals(self) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of the plan."""
        plan = self.plan()
        return jnp.sum(plan, axis=-1), jnp.sum(plan, axis=-2)

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of `points` [m, d] under each row of the plan, [n, d].

        axis=0: mean of points [n, d] under each column. Atoms without mass get 0.
        """
        axis = arguments.as_axis(axis)
        points = jnp.asarray(points, self.f.dtype)
        return self._each(lambda p, f, g, x: _barycentric(p, f, g, x, axis), points)

    def raise_if_failed(self) -> "SparseSolution":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """Say what was solved and how it went."""
        n, m = self.f.shape[-1], self.g.shape[-1]
        head = f"SparseSolution({n} x {m}, {self.f.dtype}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.f.ndim > 1:
            good = int(np.sum(np.asarray(self.converged)))
            return f"{head}, batch={self.f.shape[:-1]}, {good} CONVERGED)"
        return summary.screen(
            f"{head}, gamma={float(self.gamma):.4g})",
            describe(int(self.status)),
            f"value {float(self.value):.9g}, {int(self.nonzero)} entries, marginal "
            f"error {float(self.error):.2e}, {int(self.steps)} Newton steps",
        )
