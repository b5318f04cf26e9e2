"""Debiased Gromov-Wasserstein divergence of two spaces."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import hints
from jaxsns.geometry import CostLike, PointCloud
from jaxsns.numerics import root
from jaxsns.quadratic.solution import QuadraticSolution
from jaxsns.quadratic.solve import solve_quadratic
from jaxsns.quadratic.spaces import LowRank
from jaxsns.quadratic.starts import Start
from jaxsns.status import Status, code, worst


class QuadraticDivergence(NamedTuple):
    """The value and the three solutions behind it."""

    value: jax.Array  # []
    xy: QuadraticSolution
    xx: QuadraticSolution
    yy: QuadraticSolution

    @property
    def status(self) -> jax.Array:
        """[] int32, the worst `Status` of the three."""
        return worst([self.xy.status, self.xx.status, self.yy.status])

    @property
    def error(self) -> jax.Array:
        """[] largest marginal error of the three, relative."""
        errors = [self.xy.error, self.xx.error, self.yy.error]
        return functools.reduce(jnp.maximum, errors)

    @property
    def converged(self) -> jax.Array:
        """[] bool: all three converged."""
        return self.status == code(Status.CONVERGED)

    def raise_if_failed(self) -> "QuadraticDivergence":
        """Return self if all three converged, else raise; outside `jit` only."""
        for part in (self.xy, self.xx, self.yy):
            part.raise_if_failed()
        return self

    @property
    def distance(self) -> jax.Array:
        """[] debiased distance, the root of `value`; 0 where that is not positive."""
        return root(self.value)


@hints.answered
def gromov_wasserstein_divergence(
    x: CostLike | LowRank,
    y: CostLike | LowRank,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    linear: PointCloud | None = None,
    init: Start = "product",
    self_init: Start = "eccentricity",
    **options: Any,
) -> QuadraticDivergence:
    """Entropic Gromov-Wasserstein without most of the bias of the entropy.

        GW(x, y) - GW(x, x) / 2 - GW(y, y) / 2,   GW the `value` of `solve_quadratic`

    Args:
      x: costs within the first space, as in `solve_quadratic`.
      y: costs within the second space.
      a: [n] masses of the first; uniform with total 1 if None.
      b: [m] masses of the second, with the same total.
      epsilon: [] regularisation, one for the three problems.
      linear: `PointCloud(u, v)` of features u of the first space and v of the second
        (fused); the other two problems compare u with u, and v with v.
      init: start of the problem between x and y.
      self_init: start of the other two; "eccentricity" sends each point to itself
        where no two points have the same eccentricity.
      **options: tolerance, loss, max_steps and so on, as in `solve_quadratic`.

    Returns:
      The `QuadraticDivergence`; look at `.converged`. Near zero for spaces that are
      isometric, if the solver finds the isometry. It is not proved to be positive: the
      problems are not convex, and each of the three may end in a local minimum.

    Raises, cost: as `solve_quadratic`, three times. TypeError: linear is not a
      `PointCloud`.
    """
    own_x = own_y = None
    if linear is not None:
        if not isinstance(linear, PointCloud):
            raise TypeError(
                "linear must be a PointCloud, whose points are compared within each "
                f"space too; got {type(linear).__name__}"
            )
        own_x = dataclasses.replace(linear, y=linear.x)
        own_y = dataclasses.replace(linear, x=linear.y)
    xy = solve_quadratic(
        x, y, a, b, epsilon=epsilon, linear=linear, init=init, **options
    )
    xx = solve_quadratic(
        x, x, a, a, epsilon=epsilon, linear=own_x, init=self_init, **options
    )
    yy = solve_quadratic(
        y, y, b, b, epsilon=epsilon, linear=own_y, init=self_init, **options
    )
    value = xy.value - (xx.value + yy.value) / 2
    return QuadraticDivergence(value, xy, xx, yy)
