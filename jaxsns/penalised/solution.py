"""What `solve_penalised` returns."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxsns.recording import summary
from jaxsns.solution import Solution, require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class PenalisedSolution:
    """Plan of a penalised problem, as the solution of a linear one.

    Attributes:
      linear: solution of the linear problem whose cost is C plus the gradient of the
        penalty at this very plan.
      value: [] objective, see `solve_penalised`.
      penalty: [] penalty of the plan.
      plan_change: [] L1 change of the plan that one more step made, over its mass.
      status: [] int32, a `Status`.
      steps: [] int32 linear problems solved.

    All of it carries the derivative of the exact minimum (implicit).
    """

    linear: Solution
    value: jax.Array
    penalty: jax.Array
    plan_change: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def f(self) -> jax.Array:
        """[n] row potentials of the linear problem, in units of cost."""
        return self.linear.f

    @property
    def g(self) -> jax.Array:
        """[m] column potentials."""
        return self.linear.g

    @property
    def error(self) -> jax.Array:
        """[] L1 error of both marginals of the plan, relative to the mass."""
        return self.linear.error

    @property
    def converged(self) -> jax.Array:
        """[] bool: the plan's change and its marginal error are within tolerance."""
        return self.status == code(Status.CONVERGED)

    def plan(self) -> jax.Array:
        """[n, m] the plan, in mass."""
        return self.linear.plan()

    def marginals(self) -> tuple[jax.Array, jax.Array]:
        """([n], [m]) row and column sums of the plan."""
        return self.linear.marginals()

    def apply(self, v: jax.Array, axis: int = 1) -> jax.Array:
        """Plan times v ([m] or [m, k] -> [n, ...]); axis=0: its transpose times v."""
        return self.linear.apply(v, axis)

    def barycentric(self, points: jax.Array, axis: int = 1) -> jax.Array:
        """Mean of `points` [m, d] under each row of the plan, [n, d].

        axis=0: mean of points [n, d] under each column. Atoms without mass get 0.
        """
        return self.linear.barycentric(points, axis)

    def raise_if_failed(self) -> "PenalisedSolution":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.plan_change)
        return self

    def __repr__(self) -> str:
        """Say in one line what was solved and how it went."""
        n, m = self.linear.f.shape[-1], self.linear.g.shape[-1]
        head = f"PenalisedSolution({n} x {m}, {self.linear.f.dtype}"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        if self.status.ndim:
            found = summary.ends(self.status)
            return summary.screen(f"{head}, batch={self.status.shape}, {found})")
        return summary.screen(
            f"{head}, {Status(int(self.status)).name}, value={float(self.value):.9g}, "
            f"penalty={float(self.penalty):.3g}, "
            f"plan change={float(self.plan_change):.1e}, "
            f"marginal error={float(jnp.max(self.error)):.1e}, "
            f"steps={int(self.steps)})"
        )
