"""Partial matching with a dustbin: SuperGlue's learnt row and column."""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.geometry import Dense
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float
from jaxsns.solver import solve


@hints.answered
def dustbin_matching(
    scores: ArrayLike,
    dustbin: ArrayLike,
    *,
    where: ArrayLike | None = None,
    where_columns: ArrayLike | None = None,
    epsilon: ArrayLike = 1.0,
    return_solution: bool = False,
    **options: Any,
):
    """Match rows with columns, each at most once; what matches nothing is binned.

    The scores get one more row and column, filled with the score of a dustbin. Each
    real row and column has mass 1. The dustbin's row takes up to all columns, and its
    column all rows: its masses are their numbers. The plan is that of `solve` for the
    negative scores, to convergence and not a fixed number of sweeps.

    Args:
      scores: [..., n, m] similarities; -inf forbids a pair.
      dustbin: [] score of matching nothing, learnt as a rule, or [...] one a problem.
      where: [..., n] bool, the rows that count; all if None.
      where_columns: [..., m] bool, the columns that count; all if None.
      epsilon: [] temperature > 0, in units of the scores; 1 as published.
      return_solution: return (plan, `Solution`) of the problems with dustbins, which
        stand last; `matching_cross_entropy` takes one of them.
      **options: tolerance, method, max_steps as in `solve`.

    Returns:
      [..., n + 1, m + 1] assignments: real rows and columns sum to 1, or 0 without
      `where`; the last row and column are what was binned. Differentiable in scores
      and dustbin, implicitly. NaN for batch elements in which nothing counts,
      input is bad, or the marginal error is above 1e-3.

    Raises:
      TypeError, ValueError: a wrong type or shape.

    Cost: a solve of (n + 1) x (m + 1) a batch element.
    Source: Sarlin, DeTone, Malisiewicz, Rabinovich, "SuperGlue", CVPR 2020, section
    3.2. docs/small_problems.md.

    >>> import jax.numpy as jnp
    >>> plan = dustbin_matching(9.0 * jnp.eye(2, 3), 1.0)
    >>> plan.shape, bool(plan[0, 0] > 0.9), bool(plan[2, 2] > 0.9)
    ((3, 4), True, True)
    """
    x = as_float("scores", scores)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"scores must have shape [..., n, m], not empty; got {x.shape}"
        )
    alpha = as_float("dustbin", dustbin).astype(x.dtype)
    batch = x.shape[:-2]
    if alpha.shape not in ((), batch):
        raise ValueError(
            f"dustbin must be a scalar or have shape {list(batch)}; got {alpha.shape}"
        )
    alpha = jnp.broadcast_to(alpha, batch)
    rows = arguments.as_mask("where", where, x.shape[:-1])
    shape = (*batch, x.shape[-1])
    columns = arguments.as_mask("where_columns", where_columns, shape)

    def one(x, alpha, rows, columns):
        a, b = rows.astype(x.dtype), columns.astype(x.dtype)
        real = rows[:, None] & columns[None, :]
        # What does not count may be anything, NaN as well.
        cost = jnp.pad(-jnp.where(real, x, 0), ((0, 1), (0, 1)))
        cost = cost.at[-1, :].set(-alpha).at[:, -1].set(-alpha)
        a, b = jnp.append(a, jnp.sum(b)), jnp.append(b, jnp.sum(a))
        solution = solve(Dense(cost), a, b, epsilon=epsilon, **options)
        fine = arguments.usable(solution)
        return arguments.nan_unless(fine, solution.plan()), solution

    lanes = x, alpha, rows, columns
    plan, solution = control.vmapped(one, len(batch), *lanes)
    return (plan, solution) if return_solution else plan
