"""Debiased Gromov-Wasserstein divergence of two spaces."""

from typing import Any, NamedTuple

import jax

from jaxsns.quadratic.solution import QuadraticSolution
from jaxsns.quadratic.solve import solve_quadratic


class QuadraticDivergence(NamedTuple):
    """The value and the three solutions behind it."""

    value: jax.Array  # []
    xy: QuadraticSolution
    xx: QuadraticSolution
    yy: QuadraticSolution

    @property
    def converged(self) -> jax.Array:
        """[] bool: all three converged."""
        return self.xy.converged & self.xx.converged & self.yy.converged


def gromov_wasserstein_divergence(
    x: Any,
    y: Any,
    a: Any = None,
    b: Any = None,
    *,
    epsilon: Any,
    init: Any = "product",
    self_init: Any = "eccentricity",
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
      init: start of the problem between x and y.
      self_init: start of the other two; "eccentricity" sends each point to itself
        where no two points have the same eccentricity.
      **options: tolerance, loss, max_steps and so on, as in `solve_quadratic`.

    Returns:
      The `QuadraticDivergence`; look at `.converged`. Near zero for spaces that are
      isometric, if the solver finds the isometry. It is not proved to be positive: the
      problems are not convex, and each of the three may end in a local minimum.

    Raises, cost: as `solve_quadratic`, three times.
    """
    xy = solve_quadratic(x, y, a, b, epsilon=epsilon, init=init, **options)
    xx = solve_quadratic(x, x, a, a, epsilon=epsilon, init=self_init, **options)
    yy = solve_quadratic(y, y, b, b, epsilon=epsilon, init=self_init, **options)
    value = xy.value - (xx.value + yy.value) / 2
    return QuadraticDivergence(value, xy, xx, yy)
