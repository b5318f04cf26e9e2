"""What can be chosen of Newton's method."""

import dataclasses
import functools

import jax

from jaxsns.solvers.newton import direction


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps", "patience"),
    meta_fields=("linear_solver",),
)
@dataclasses.dataclass(frozen=True)
class NewtonOptions:
    """Numbers are data; the linear solver changes the program.

    Attributes:
      tolerance: relative L1 error of both marginals.
      max_steps: sweeps, each with or without a Newton step before it.
      patience: sweeps that are made rather than a Newton step, if the measured
        contraction says that so many will do.
      linear_solver: "auto", "cg", "sparse" or "cholesky".
    """

    tolerance: float | jax.Array = 1e-9
    max_steps: int | jax.Array = 1000
    patience: float | jax.Array = 0.0
    linear_solver: str = "auto"

    def __post_init__(self):
        """Refuse an unknown linear solver."""
        known = direction.LINEAR_SOLVERS
        if self.linear_solver not in known:
            names = ", ".join(repr(name) for name in known)
            raise ValueError(
                f"linear_solver must be one of {names}; got {self.linear_solver!r}"
            )
