"""From a plan that nearly fits to one that fits, and to a permutation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsns.problem import arguments
from jaxsns.problem.checks import coarseness, equalised, mass_slack
from jaxsns.problem.inputs import as_float


def _as_plan(plan: Any) -> tuple[jax.Array, jax.Array]:
    plan = as_float("plan", plan)
    if plan.ndim != 2 or 0 in plan.shape:
        raise ValueError(f"plan must have shape [n, m], not empty; got {plan.shape}")
    fine = arguments.holds(
        lambda xp, p: xp.all(xp.isfinite(p) & (p >= 0)),
        lambda: "plan must hold finite numbers >= 0",
        plan,
    )
    return plan, fine


def shrink(sums: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return factors at most 1 after which no sum is above what is wanted."""
    large = sums > wanted
    return jnp.where(large, wanted / jnp.where(large, sums, 1), 1)


@jax.jit
def to_feasible(plan: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """`round_to_feasible` without its checks."""
    plan = plan * shrink(jnp.sum(plan, axis=1), a)[:, None]
    plan = plan * shrink(jnp.sum(plan, axis=0), b)[None, :]
    rows = jnp.maximum(a - jnp.sum(plan, axis=1), 0)
    columns = jnp.maximum(b - jnp.sum(plan, axis=0), 0)
    # Equal but for rounding. The larger one keeps both marginals from overshooting.
    missing = jnp.maximum(jnp.sum(rows), jnp.sum(columns))
    share = columns / jnp.where(missing > 0, missing, 1)
    return plan + rows[:, None] * share[None, :]


def round_to_feasible(plan: ArrayLike, a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Nearby plan with exactly the marginals a and b.

    Rows, then columns, with too much mass are scaled down; what is missing is added
    as a matrix of rank one.

    Args:
      plan: [n, m] masses >= 0, e.g. `solution.plan()`.
      a: [n] masses >= 0 of the rows, e.g. `solution.problem.a`; zeros are fine.
      b: [m] masses >= 0 of the columns with the same total; of bfloat16 or float16
        masses totals may differ by their rounding, and b is then scaled to that of a.

    Returns:
      [n, m] plan >= 0, its marginals a and b up to rounding. In L1 it differs from
      `plan` by at most twice the L1 error of both marginals of `plan` together, so
      its cost <C, P> is above that of `plan` by at most that times max |C|.
      Differentiable where no row or column is exactly full.

    Raises:
      TypeError, ValueError: a wrong type or shape always; negative or non-finite
        entries and unequal totals if they are not traced. Traced ones give NaN.

    Cost: a few passes over the plan, one or two arrays of its size.
    Source: Altschuler, Weed, Rigollet, "Near-linear time approximation algorithms
      for optimal transport via Sinkhorn iteration", NeurIPS 2017, Algorithm 2 and
      Lemma 7.
    """
    plan, fine = _as_plan(plan)
    n, m = plan.shape
    masses = []
    for name, value, letter, size in (("a", a, "n", n), ("b", b, "m", m)):
        mass = as_float(name, value)
        if mass.shape != (size,):
            raise ValueError(
                f"{name} must have shape [{letter}] = [{size}] to match plan "
                f"{plan.shape}; got {mass.shape}"
            )
        fine &= arguments.holds(
            lambda xp, x: xp.all(xp.isfinite(x) & (x >= 0)),
            lambda name=name: f"{name} must hold finite masses >= 0",
            mass,
        )
        masses.append(mass)
    dtype = np.result_type(plan.dtype, *[x.dtype for x in masses])
    coarse = coarseness(a) + coarseness(b)
    if coarse > 0:
        total = jnp.sum(masses[0], keepdims=True)
        masses[1] = equalised(masses[1], total.astype(masses[1].dtype), coarse)
    least = max((x.dtype for x in masses), key=lambda t: float(jnp.finfo(t).eps))
    slack = mass_slack(least, n, m)
    fine &= arguments.holds(
        lambda xp, x, y: abs(xp.sum(x) - xp.sum(y)) <= slack * xp.sum(x),
        lambda: "a and b must have equal totals (normalise both, e.g. a / a.sum())",
        *[x.astype(dtype) for x in masses],
    )
    plan, a, b = plan.astype(dtype), *[x.astype(dtype) for x in masses]
    return arguments.nan_unless(fine, to_feasible(plan, a, b))


@jax.jit
def _to_permutation(plan: jax.Array) -> jax.Array:
    # Imported here: optax takes as long to import as all of us.
    from optax.assignment import hungarian_algorithm

    # optax works in the default float; another dtype would be a silent promotion.
    columns = jnp.arange(plan.shape[0])
    rows, matched = hungarian_algorithm(-plan.astype(jnp.result_type(float)))
    out = jnp.zeros_like(columns).at[rows].set(matched.astype(columns.dtype))
    return out.astype(jnp.int32)


def round_to_permutation(plan: ArrayLike) -> jax.Array:
    """Permutation that carries the most mass of a square plan.

    Args:
      plan: [n, n] masses >= 0, e.g. `solution.plan()`.

    Returns:
      [n] int32, the column of each row. As a matrix it is the permutation nearest
      to a plan in the Frobenius norm. It has no derivative. -1 everywhere if a
      traced plan is not finite.

    Raises:
      TypeError, ValueError: a wrong type or shape always; entries that are not
        finite or below zero if they are not traced.

    Cost: O(n^3) by the Hungarian algorithm of optax, in float64 if that is enabled.
    """
    plan, fine = _as_plan(plan)
    if plan.shape[0] != plan.shape[1]:
        raise ValueError(f"plan must be square, [n, n]; got {plan.shape}")
    plan = jax.lax.stop_gradient(plan)
    # Nothing of what the algorithm does with NaN is worth relying on.
    out = _to_permutation(jnp.where(fine, plan, 0))
    return jnp.where(fine, out, -1)
