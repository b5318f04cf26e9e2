"""What `solve_exact` returns."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import hints
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.recording import summary
from jaxsns.solution import require_converged
from jaxsns.status import Status, code

# [D46]
WHOLE = 1e-6  # share of a row that may lie elsewhere than on a permutation


class Rounded(NamedTuple):
    """Feasible plan near an entropic one, without a matrix.

    It is the plan of these potentials plus rows columns^T / sum(rows).
    """

    problem: Problem
    f: jax.Array  # [n] in units of cost
    g: jax.Array  # [m]
    rows: jax.Array  # [n] mass that the plan of the potentials lacks
    columns: jax.Array  # [m]

    def plan(self) -> jax.Array:
        """[n, m] in mass."""
        total = jnp.sum(self.rows)
        share = self.columns / jnp.where(total > 0, total, 1)
        plan = dual.plan(self.problem, self.f, self.g)
        return plan + self.rows[:, None] * share[None, :]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class ExactSolution:
    """A feasible plan and feasible potentials, and how far apart their values are.

    Attributes:
      f: [n] row potentials, in units of cost, with f_i + g_j <= C_ij for all permitted
        pairs up to rounding. Gauge: <a, f> = <b, g>.
      g: [m] column potentials.
      value: [] <C, P> of the plan, in cost times mass: an upper bound of the optimum;
        inf if there is no plan. It carries the derivative.
      dual_value: [] <a, f> + <b, g>: a lower bound. A number without derivative.
      gap: [] value minus dual_value, relative to <|C|, P>; see `solve_exact`.
      status: [] int32, a `Status`.
      steps: [] int32 pivots, and rounds of shortest paths; of streamed costs, levels
        of epsilon.
      flow: [n, m] the plan, or None where costs are streamed.
      rounded: the plan where costs are streamed, or None.

    A solution that came out of `vmap` has its lanes on the first axes.
    """

    f: jax.Array
    g: jax.Array
    value: jax.Array
    dual_value: jax.Array
    gap: jax.Array
    status: jax.Array
    steps: jax.Array
    flow: jax.Array | None = None
    rounded: Rounded | None = None

    def __getattr__(self, name: str):
        """Answer to names of other libraries."""
        raise hints.attribute(self, name, hints.ATTRIBUTES | hints.UNREGULARISED)

    @property
    def converged(self) -> jax.Array:
        """[] bool: the gap is at most what was asked for."""
        return self.status == code(Status.CONVERGED)

    def plan(self) -> jax.Array:
        """[n, m] the plan, in mass, with marginals a and b. No derivative.

        From a matrix of costs it has at most n + m - 1 entries if the optimum is
        unique; where there are ties it is optimal but may be no vertex.
        """
        if self.flow is not None:
            return self.flow
        assert self.rounded is not None
        function = Rounded.plan
        for _ in range(self.status.ndim):
            function = jax.vmap(function)
        return function(self.rounded)

    @property
    def permutation(self) -> jax.Array:
        """[n] int32 column of each row; -1 everywhere if the plan is no permutation.

        With n = m and equal masses, not streamed, the plan always is one.
        """
        plan = self.plan()
        n, m = plan.shape[-2:]
        if n != m:
            raise ValueError(f"a permutation needs n = m; got a plan of shape {n, m}")
        column = jnp.argmax(plan, axis=-1)
        on_it = jnp.max(plan, axis=-1)
        whole = jnp.all(on_it >= (1 - WHOLE) * jnp.sum(plan, axis=-1), axis=-1)
        wanted = jnp.broadcast_to(jnp.arange(n, dtype=column.dtype), column.shape)
        once = jnp.all(jnp.sort(column, axis=-1) == wanted, axis=-1)
        known = (whole & once)[..., None]
        return jnp.where(known, column, -1).astype(jnp.int32)

    def raise_if_failed(self) -> "ExactSolution":
        """Return self if every batch element converged, else raise `NotConvergedError`.

        Outside `jit` only: a traced status cannot raise.
        """
        require_converged(self.status, self.gap)
        return self

    def __repr__(self) -> str:
        """Say in one line what was solved and how it went."""
        n, m = self.f.shape[-1], self.g.shape[-1]
        head = f"ExactSolution({n} x {m}, {self.f.dtype}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.status.ndim:
            names, number = np.unique(np.asarray(self.status), return_counts=True)
            pairs = zip(names, number, strict=True)
            ends = ", ".join(f"{Status(int(s)).name}: {k}" for s, k in pairs)
            worst = float(jnp.max(self.gap))
            return summary.screen(
                f"{head}, batch={self.status.shape}, {ends}, worst gap={worst:.1e})"
            )
        return (
            f"{head}, {Status(int(self.status)).name}, "
            f"value={float(self.value):.9g}, gap={float(self.gap):.1e}, "
            f"steps={int(self.steps)})"
        )
