"""What `solve_constrained` returns."""

import dataclasses

import jax
import numpy as np
from jax.core import Tracer

from jaxsns.solution import Solution, require_converged
from jaxsns.status import Status, code


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class ConstrainedSolution:
    """Plan that meets linear constraints, as the plan of a changed cost.

    Attributes:
      solution: of the cost C + sum_k multipliers_k A_k, without other constraints.
      multipliers: [K] in units of cost over units of A: positive where the upper bound
        is met, negative where the lower is, 0 elsewhere.
      moments: [K] <A_k, P>.
      value: [] <C, P> + epsilon sum P (log P - 1), evaluated as the dual.
      error: [] largest violation of a bound, or of a bound that should be met, over
        the mass times the largest entry of its A_k.
      status: [] int32, a `Status`.
      steps: [] int32 Newton steps on the multipliers.

    All of it carries the derivative of the exact solution (implicit).
    """

    solution: Solution
    multipliers: jax.Array
    moments: jax.Array
    value: jax.Array
    error: jax.Array
    status: jax.Array
    steps: jax.Array

    @property
    def converged(self) -> jax.Array:
        """[] bool: marginals and constraints are met within the tolerances."""
        return self.status == code(Status.CONVERGED)

    def plan(self) -> jax.Array:
        """[n, m] the plan, in mass."""
        return self.solution.plan()

    def raise_if_failed(self) -> "ConstrainedSolution":
        """Return self if every element converged, else raise; outside `jit` only."""
        require_converged(self.status, self.error)
        return self

    def __repr__(self) -> str:
        """Say how many constraints there are, and how the solve went."""
        head = f"ConstrainedSolution({self.multipliers.shape[-1]} constraints"
        if isinstance(self.status, Tracer):
            return head + ", traced)"
        good = int(np.sum(np.asarray(self.converged)))
        return f"{head}, {good} of {np.size(self.status)} CONVERGED)"
