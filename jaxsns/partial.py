"""Partial transport: a given share of the mass is moved, the rest stays where it is.

What stays goes to a virtual atom of cost zero; then every marginal is exact, and the
problem is an ordinary one. Sources: Caffarelli and McCann (2010) for the virtual
atoms; Zhang et al., "P2OT" (ICLR 2024), for the form with one penalised marginal.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, Dense
from jaxsns.numerics import forbidden_cost
from jaxsns.problem import dual
from jaxsns.problem.inputs import as_float, make_problem
from jaxsns.problem.problem import Problem
from jaxsns.recording.counts import Counts
from jaxsns.solution import Solution
from jaxsns.solver import initial, solve


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("extended", "problem"),
    meta_fields=("virtual_row", "virtual_column"),
)
@dataclasses.dataclass(frozen=True, repr=False)
class PartialSolution:
    """Solution of a partial problem, without its virtual atoms.

    Attributes:
      extended: the solution with the virtual atoms, which stand last.
      problem: what was given, without virtual atoms.
      virtual_row: whether there is a virtual row.
      virtual_column: whether there is a virtual column.
    """

    extended: Solution
    problem: Problem
    virtual_row: bool
    virtual_column: bool

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name)

    def _rows(self, x: jax.Array, axis: int = -1) -> jax.Array:
        size = x.shape[axis] - int(self.virtual_row)
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)

    def _columns(self, x: jax.Array, axis: int = -1) -> jax.Array:
        size = x.shape[axis] - int(self.virtual_column)
        return jax.lax.slice_in_dim(x, 0, size, axis=axis)

    @property
    def f(self) -> jax.Array:
        """[n] row potentials, in units of cost."""
        return self._rows(self.extended.f)

    @property
    def g(self) -> jax.Array:
        """[m] column potentials."""
        return self._columns(self.extended.g)

    @property
    def epsilon(self) -> jax.Array:
        """[] regularisation used, in units of cost."""
        return self.extended.epsilon

    @property
    def error(self) -> jax.Array:
        """[] L1 error of all marginals, those of virtual atoms included, relative.

        What is moved is known to about this over the share.
        """
        return self.extended.error

    @property
    def status(self) -> jax.Array:
        """[] int32, a `Status`."""
        return self.extended.status

    @property
    def counts(self) -> Counts:
        """Work done."""
        return self.extended.counts

    @property
    def converged(self) -> jax.Array:
        """[] bool: the error is at most the tolerance."""
        return self.extended.converged

    @property
    def value(self) -> jax.Array:
        """[] value of the extended problem, whose virtual pairs have entropy only."""
        return self.extended.value

    @property
    def transport_cost(self) -> jax.Array:
        """[] <C, P> of the mass that is moved. One pass."""
        return self.extended.transport_cost

    def real_pairs(self) -> Solution:
        """Solution whose plan is that between real atoms, of one problem.

        What functions of plans ask for. Its potentials lack offsets of the costs, and
        its marginals are not all of a and b.
        """
        problem, f, g = self.extended.core
        cost = self._columns(self._rows(problem.geometry.dense().entries, 0), 1)
        a, b = self._rows(problem.a), self._columns(problem.b)
        real = Problem(Dense(cost), a, b, problem.epsilon)
        f, g = self._rows(f), self._columns(g)
        return dataclasses.replace(self.extended, problem=real, f=f, g=g, reduced=None)

    def plan(self) -> jax.Array:
        """[n, m] plan between real atoms, in mass; its total is what is moved."""
        return self._columns(self._rows(self.extended.plan(), -2), -1)

    def marginals(self) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) mass that each atom gives or gets: at most a and b."""
        plan = self.plan()
        return jnp.sum(plan, axis=-1), jnp.sum(plan, axis=-2)

    def apply(self, v: jax.Array, axis: int = 1) -> jax.Array:
        """Plan times v ([m] or [m, k] -> [n, ...]); axis=0: its transpose times v."""
        virtual = self.virtual_column if axis == 1 else self.virtual_row
        place = self.extended.f.ndim - 1
        pad = [(0, 0)] * v.ndim
        pad[place] = (0, int(virtual))
        out = self.extended.apply(jnp.pad(v, pad), axis)
        return self._rows(out, place) if axis == 1 else self._columns(out, place)

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of `points` [m, d] under the moved mass of each row, [n, d].

        axis=0: mean of points [n, d] under each column. Atoms that move nothing get 0.
        """
        place = self.extended.f.ndim - 1
        table = points[..., None] if points.ndim == place + 1 else points
        # Padded, as in `Solution.barycentric`.
        table = jnp.pad(
            table, [(0, 0)] * (table.ndim - 1) + [(0, 1)], constant_values=1
        )
        sums = self.apply(table, axis)
        mass = sums[..., -1:]
        means = sums[..., :-1] / jnp.where(mass > 0, mass, 1)
        return means[..., 0] if points.ndim == place + 1 else means

    @property
    def gap(self) -> jax.Array:
        """[] primal minus dual value of the extended problem."""
        return self.extended.gap

    def raise_if_failed(self) -> "PartialSolution":
        """Return self if every element converged, else raise; outside `jit` only."""
        self.extended.raise_if_failed()
        return self

    def __repr__(self) -> str:
        """Say what was solved, virtual atoms included."""
        return "Partial" + repr(self.extended)

    def _repr_html_(self) -> str:
        """Say the same in a table, for notebooks."""
        return self.extended._table("PartialSolution")


def _checked_share(share: Any, dtype: Any) -> jax.Array:
    if share is None:
        raise TypeError("share must be a number; got None")
    share = as_float("share", share)
    if share.shape != ():
        raise ValueError(f"share must be a scalar; got shape {share.shape}")
    if not isinstance(share, Tracer) and not 0 < float(share) <= 1:
        raise ValueError(f"share must be in (0, 1]; got {share}")
    share = share.astype(dtype)
    # NaN masses become the status INVALID_INPUT.
    return jnp.where((share > 0) & (share <= 1), share, jnp.nan)


def _append(x: jax.Array, value: jax.Array, wanted: bool) -> jax.Array:
    return jnp.concatenate([x, value[None].astype(x.dtype)]) if wanted else x


@functools.partial(jax.jit, static_argnums=(2, 3))
def extend(problem: Problem, share: jax.Array, row: bool, column: bool) -> Problem:
    """Add virtual atoms of cost zero so that `share` of the mass is moved.

    With both, at most a and b is given and got and share * min(sum a, sum b) moved.
    With a virtual column only, the rows give share * sum a in all, and the columns
    are penalised against share * b; with a virtual row only, the other way round.
    """
    a, b = problem.a, problem.b
    if row and column:
        moved = share * jnp.minimum(jnp.sum(a), jnp.sum(b))
        rest_a, rest_b = jnp.sum(a) - moved, jnp.sum(b) - moved
        # The difference may round below zero where all is moved.
        rest_a, rest_b = (jnp.where(x > -1e-6 * moved, jnp.maximum(x, 0), x)
                          for x in (rest_a, rest_b))  # fmt: skip
    else:
        rest_a, rest_b = (1 - share) * jnp.sum(a), (1 - share) * jnp.sum(b)
        a, b = (a, share * b) if column else (share * a, b)
    cost = problem.geometry.dense().entries
    cost = jnp.pad(cost, ((0, int(row)), (0, int(column))))
    if row and column:
        cost = cost.at[-1, -1].set(forbidden_cost(cost.dtype))
    a, b = _append(a, rest_b, row), _append(b, rest_a, column)
    rho_a, rho_b = (
        None if rho is None else jnp.pad(rho, (0, int(more)), constant_values=jnp.inf)
        for rho, more in ((problem.rho_a, row), (problem.rho_b, column))
    )
    return Problem(Dense(cost), a, b, problem.epsilon, rho_a, rho_b)


def _with_virtual(
    extended: Problem, f: jax.Array, g: jax.Array, row: bool, column: bool
):
    """Potentials of the extended problem, from those of the real atoms.

    A virtual atom is paired with real ones only, so theirs fix its own.
    """
    low = dual.nothing(extended)
    f, g = _append(f, low, row), _append(g, low, column)
    rows, columns = dual.row_update(extended, g), dual.column_update(extended, f)
    f = f.at[-1].set(rows[-1]) if row else f
    return f, g.at[-1].set(columns[-1]) if column else g


@hints.answered
def solve_partial(
    cost: CostLike,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    share: ArrayLike,
    epsilon: ArrayLike | None = None,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    relative_to: str | None = None,
    scale_cost: str | None = None,
    init: tuple[ArrayLike, ArrayLike] | None = None,
    **options: Any,
) -> PartialSolution:
    """Move a share of the mass only, where it costs least.

    Without rho: P 1 <= a, P^T 1 <= b and sum P = share * min(sum a, sum b). With
    rho_b: P 1 <= a, sum P = share * sum a, and rho_b KL(P^T 1 | share * b) is paid;
    with rho_a the other way round.

    Args:
      cost: [n, m] costs, or a geometry; its matrix is formed.
      a: [n] masses of the rows; uniform with total 1 if None.
      b: [m] masses of the columns; totals need not be equal.
      share: [] in (0, 1], may be traced; 1 gives the balanced problem, or the
        semi-relaxed one. The tolerance is relative to all mass: for a share of 1e-3
        ask for one that is 1e-3 times as small, in float64.
      epsilon: [] regularisation; the entropy is that of the virtual pairs as well.
      rho_a: as in `solve`; not together with rho_b.
      rho_b: as in `solve`.
      relative_to: as in `solve`.
      scale_cost: as in `solve`.
      init: (f [n], g [m]) potentials to start from, as in `solve`.
      **options: method, tolerance, max_steps and so on, as in `solve`.

    Returns:
      The `PartialSolution`; derivatives as those of `Solution`, and in share.

    Raises:
      ValueError: as `solve`; a share outside (0, 1]; rho_a and rho_b together, since
        then the amount that is moved is free.

    Status: a traced share outside (0, 1] gives INVALID_INPUT.
    Cost: that of `solve` with one more row and column.
    """
    if rho_a is not None and rho_b is not None:
        raise ValueError(
            "share needs a marginal that is not penalised: give rho_a or rho_b only"
        )
    row, column = rho_b is None, rho_a is None
    # Totals may differ here: with both penalised nothing is asked of them.
    problem = make_problem(
        cost,
        a,
        b,
        epsilon=epsilon,
        rho_a=1.0 if rho_a is None else rho_a,
        rho_b=1.0 if rho_b is None else rho_b,
        relative_to=relative_to,
        scale_cost=scale_cost,
    )
    problem = dataclasses.replace(
        problem,
        rho_a=None if rho_a is None else problem.rho_a,
        rho_b=None if rho_b is None else problem.rho_b,
    )
    extended = extend(problem, _checked_share(share, problem.dtype), row, column)
    start = initial(problem, init)
    if start is not None:
        start = _with_virtual(extended, *start, row, column)
    solution = solve(extended, init=start, **options)
    return PartialSolution(solution, problem, row, column)
