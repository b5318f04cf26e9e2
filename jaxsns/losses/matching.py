"""Losses that compare a plan with a known matching."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import is_forbidden, masked
from jaxsns.partial import PartialSolution
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float
from jaxsns.solution import Solution, core_potentials, one_solution


def _log_conditional(solution: Solution, axis: int) -> jax.Array:
    """[n, m] log of the plan's rows over their mass ([m, n] of columns, axis=0).

    -inf for pairs that have no mass.
    """
    problem = solution.problem
    problem, f, g = core_potentials(solution)
    cost = problem.geometry.dense().entries
    cost, potential = (cost, g) if axis == 1 else (cost.T, f)
    real = (_sides(solution, axis)[1] > 0)[None, :] & ~is_forbidden(cost)
    # The own potential cancels, so it needs no derivative.
    log = (potential[None, :] - cost) / problem.epsilon
    # The softmax of a row without any pair is NaN, and so would derivatives be.
    log = masked(log, real | ~jnp.any(real, axis=1, keepdims=True))
    return masked(jax.nn.log_softmax(log, axis=1), real)


def _known(solution: Solution, loss: jax.Array) -> jax.Array:
    """Return the losses, or NaN: a row that is left out hides no failed solve."""
    return arguments.nan_unless(~jnp.any(jnp.isnan(solution.g)), loss)


def _sides(solution: Solution, axis: int) -> tuple[jax.Array, jax.Array]:
    """Masses of the examples and of what they are matched with."""
    a, b = solution.problem.a, solution.problem.b
    return (a, b) if axis == 1 else (b, a)


@functools.partial(jax.jit, static_argnums=3)
def _against_plan(solution, target, where, axis: int) -> jax.Array:
    target = target if axis == 1 else target.T
    own, _ = _sides(solution, axis)
    counts = (where & (own > 0))[:, None] & (target != 0)
    log = _log_conditional(solution, axis)
    terms = jnp.where(counts, target * jnp.where(counts, log, 0), 0)
    return _known(solution, -jnp.sum(terms, axis=1))


@functools.partial(jax.jit, static_argnums=3)
def _against_labels(solution, labels, where, axis: int) -> jax.Array:
    own, other = _sides(solution, axis)
    counts = where & (own > 0)
    known = (labels >= 0) & (labels < other.shape[0])
    labels = jnp.where(known, labels, 0)
    log = jnp.take_along_axis(
        _log_conditional(solution, axis), labels[:, None], axis=1
    )[:, 0]
    loss = jnp.where(counts, jnp.where(known, -log, jnp.nan), 0)
    return _known(solution, loss)


def matching_cross_entropy(
    solution: Solution | PartialSolution,
    target: ArrayLike,
    *,
    axis: int = 1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy of each row of the plan against a target plan.

        loss_i = -sum_j target_ij log(P_ij / sum_k P_ik)

    Args:
      solution: of one problem; its status says how good the plan is.
      target: [n, m] non-negative weights, as the labels of
        `optax.losses.softmax_cross_entropy`: rows of total 1 give nats a row, a
        plan gives nats times mass. They are not normalised.
      axis: 1, or 0 for the columns of the plan: loss [m], same target.
      where: [n] bool ([m] for axis=0), the rows that count; all if None.

    Returns:
      [n] losses >= 0, not reduced. 0 for rows without `where`, mass or target;
      infinite if a target lies on an atom without mass or a forbidden pair; NaN if
      potentials are.
      Differentiable in the target and in all that was solved for.

    Raises:
      TypeError, ValueError: a wrong type, shape or axis always; a target that is
        negative or not finite if it is not traced. A traced one gives NaN.

    Cost: one pass, two arrays of the size of the plan.
    """
    solution = one_solution(solution)
    axis = arguments.as_axis(axis)
    target = as_float("target", target)
    if target.shape != solution.problem.shape:
        raise ValueError(
            f"target must have shape [n, m] = {list(solution.problem.shape)}; "
            f"got {target.shape}"
        )
    fine = arguments.holds(
        lambda xp, t: xp.all(xp.isfinite(t) & (t >= 0)),
        lambda: "target must hold finite weights >= 0",
        target,
    )
    where = arguments.as_mask("where", where, _sides(solution, axis)[0].shape)
    target = arguments.nan_unless(fine, target.astype(solution.f.dtype))
    return _against_plan(solution, target, where, axis)


def matching_cross_entropy_with_integer_labels(
    solution: Solution | PartialSolution,
    labels: ArrayLike,
    *,
    axis: int = 1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross-entropy of each row of the plan against the column it belongs to.

        loss_i = -log(P_ij / sum_k P_ik)  at  j = labels_i

    Args:
      solution: of one problem; its status says how good the plan is.
      labels: [n] integers, a column of each row ([m], a row of each column, for
        axis=0).
      axis: 1 or 0.
      where: [n] bool, the rows that count; all if None. Labels of others may be
        anything.

    Returns:
      [n] losses >= 0 in nats, not reduced; otherwise as `matching_cross_entropy`.
      A traced label out of range gives NaN.

    Raises:
      TypeError, ValueError: a wrong type, shape or axis always; labels out of
        range where they count if they are not traced.

    Cost: one pass, two arrays of the size of the plan.
    """
    solution = one_solution(solution)
    axis = arguments.as_axis(axis)
    own, other = _sides(solution, axis)
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers; got dtype {labels.dtype}")
    if labels.shape != own.shape:
        raise ValueError(
            f"labels must have shape {list(own.shape)} for axis={axis}; "
            f"got {labels.shape}"
        )
    where = arguments.as_mask("where", where, own.shape)
    size = other.shape[0]
    arguments.holds(
        lambda xp, i, w: xp.all(((i >= 0) & (i < size)) | ~w),
        lambda: f"labels must be from 0 to {size - 1} where they count",
        labels,
        where,
    )
    return _against_labels(solution, labels, where, axis)
