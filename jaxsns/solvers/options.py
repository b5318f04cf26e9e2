"""What can be chosen of each method. Numbers are data; the rest changes the program."""

import dataclasses
import functools

import jax
from jax.typing import ArrayLike

LINEAR_SOLVERS = ("auto", "cg", "cholesky")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps", "patience", "rounding_share"),
    meta_fields=("linear_solver",),
)
@dataclasses.dataclass(frozen=True)
class NewtonOptions:
    """Options of Newton's method.

    Attributes:
      tolerance: [] relative L1 error of both marginals; None: what the dtype can do,
        see `solve`.
      max_steps: [] sweeps, each with or without a Newton step before it.
      patience: [] sweeps that are made rather than a Newton step, if the measured
        contraction says that so many will do.
      linear_solver: "auto", "cg" or "cholesky".
      rounding_share: [] multiple of the error that rounding explains, to which the
        tolerance is raised; `solve` takes 1 where no tolerance is given.
    """

    tolerance: ArrayLike | None = None
    max_steps: ArrayLike = 1000
    patience: ArrayLike = 0.0
    linear_solver: str = "auto"
    rounding_share: ArrayLike = 0.0

    def __post_init__(self):
        """Refuse an unknown linear solver."""
        if self.linear_solver not in LINEAR_SOLVERS:
            names = ", ".join(repr(name) for name in LINEAR_SOLVERS)
            raise ValueError(
                f"linear_solver must be one of {names}; got {self.linear_solver!r}"
            )


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps", "rounding_share"),
    meta_fields=("overrelaxation", "early_stop", "exact"),
)
@dataclasses.dataclass(frozen=True)
class SinkhornOptions:
    """Options of Sinkhorn's iteration.

    Attributes:
      tolerance: [] relative L1 error of both marginals; None: as in `solve`.
      max_steps: [] sweeps; None: 20,000, or an error if early_stop is False.
      overrelaxation: over-relax by a factor read off the measured contraction.
      early_stop: False makes exactly max_steps plain sweeps.
      exact: "rows" or "columns", the side whose marginal is exact after the last of a
        fixed number of sweeps: each sweep corrects the other side first.
      rounding_share: [] as in `NewtonOptions`.
    """

    tolerance: ArrayLike | None = None
    max_steps: ArrayLike | None = None
    overrelaxation: bool = True
    early_stop: bool = True
    exact: str = "columns"
    rounding_share: ArrayLike = 0.0

    def __post_init__(self):
        """Refuse an unknown side."""
        if self.exact not in ("rows", "columns"):
            raise ValueError(f"exact must be 'rows' or 'columns'; got {self.exact!r}")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("tolerance", "max_steps", "warm_up", "rounding_share"),
    meta_fields=("kept",),
)
@dataclasses.dataclass(frozen=True)
class SNSOptions:
    """Options of Sinkhorn-Newton-Sparse as published.

    Attributes:
      tolerance: [] relative L1 error of both marginals; None: as in `solve`.
      max_steps: [] sweeps and Newton steps together.
      warm_up: [] N1 of the paper, sweeps before the first Newton step.
      kept: entries of the plan kept in each row and each column; static.
      rounding_share: [] as in `NewtonOptions`.
    """

    tolerance: ArrayLike | None = None
    max_steps: ArrayLike = 1000
    warm_up: ArrayLike = 20
    kept: int = 8
    rounding_share: ArrayLike = 0.0

    def __post_init__(self):
        """Refuse a `kept` that is no positive integer."""
        if not isinstance(self.kept, int) or self.kept < 1:
            raise ValueError(f"kept must be a positive integer; got {self.kept!r}")


Options = NewtonOptions | SinkhornOptions | SNSOptions
