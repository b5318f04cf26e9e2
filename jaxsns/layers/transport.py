"""Transport as a loss, as attention and as pooling, for batches with masks.

Functions without parameters, so that they are the same in flax, equinox and plain
JAX. By the conventions of optax's losses: leading axes are a batch, `where` says what
counts, and losses are not reduced.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.geometry import Dense, PointCloud
from jaxsns.geometry.costs import CostFunction
from jaxsns.losses.divergence import Divergence, sinkhorn_divergence
from jaxsns.numerics import matmul
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float
from jaxsns.solver import solve


def _points(name: str, value: Any, letters: str, like: Any = None, axis: int = -1):
    """[..., n, d] numbers; the batch and an axis are those of `like`."""
    x = as_float(name, value)
    if x.ndim < 2 or x.size == 0:
        raise ValueError(
            f"{name} must have shape [..., {letters}], not empty; got {x.shape}"
        )
    if like is not None and (
        x.shape[:-2] != like.shape[:-2] or x.shape[axis] != like.shape[axis]
    ):
        raise ValueError(
            f"{name} must agree with {like.shape} in its batch and in axis {axis}; "
            f"got {x.shape}"
        )
    return x if like is None else x.astype(like.dtype)


def _masked(name: str, where: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Points with zeros where they do not count, and masses of total 1."""
    return _with_masses(arguments.as_mask(name, where, x.shape[:-1]), x)


@jax.jit
def _with_masses(mask: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    mass = mask.astype(x.dtype)
    total = jnp.sum(mass, axis=-1, keepdims=True)
    return jnp.where(mask[..., None], x, 0), mass / jnp.where(total > 0, total, 1)


def _given(out: jax.Array, solution: Any, depth: int, return_solution: bool):
    """NaN for batch elements without a usable solution; with the solution if wanted."""
    parts = solution.parts if isinstance(solution, Divergence) else (solution,)
    known = arguments.usable(*parts)
    known = known.reshape(out.shape[:depth] + (1,) * (out.ndim - depth))
    out = arguments.nan_unless(known, out)
    return (out, solution) if return_solution else out


@hints.answered
def transport_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    where_targets: ArrayLike | None = None,
    epsilon: ArrayLike | None = None,
    rho: ArrayLike | None = None,
    cost: str | CostFunction = "sqeuclidean",
    return_solution: bool = False,
    **options: Any,
):
    """Sinkhorn divergence of each predicted set of points from its target.

    Args:
      predictions: [..., n, d] points.
      targets: [..., m, d] points, the same batch.
      where: [..., n] bool, the points that count, with equal masses; all if None.
      where_targets: [..., m] bool, the same of the targets.
      epsilon: [] regularisation > 0 in units of cost; None: 0.05 of the standard
        deviation of the costs, element by element. That grows with the distance between
        predictions and targets: far apart the plan is close to the product of the
        masses and the loss sees little more than the means. relative_to="within" does
        not grow. Costs that are all equal have no deviation: see `make_problem`.
      rho: [] weight of penalties of the marginals, as in `sinkhorn_divergence`.
      cost: of two points, as in `PointCloud`.
      return_solution: return (loss, `Divergence`), with the same batch axes.
      **options: relative_to, tolerance, method, max_steps as in `solve`.

    Returns:
      [...] losses >= 0, in units of cost, not reduced. Differentiable to any order. A
      solve that stalled or ran out of steps at a marginal error of at most 1e-3 still
      gives its loss. NaN, with NaN derivatives, for batch elements with a larger
      error, with bad input, without a plan, or with no unmasked points.
      `return_solution` tells which.

    Raises:
      TypeError, ValueError: a wrong type or shape.

    Cost: three solves a batch element; see `sinkhorn_divergence` and docs/choosing.md.
    """
    x = _points("predictions", predictions, "n, d")
    y = _points("targets", targets, "m, d", x)
    (x, a), (y, b) = (
        _masked("where", where, x),
        _masked("where_targets", where_targets, y),
    )
    one = functools.partial(
        sinkhorn_divergence, cost=cost, epsilon=epsilon, rho=rho, **options
    )
    depth = x.ndim - 2
    divergence = control.vmapped(one, depth, x, y, a, b)
    names = "predictions", "targets"
    divergence = dataclasses.replace(divergence, names=names)
    return _given(divergence.value, divergence, depth, return_solution)


@hints.answered
def transport_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    where: ArrayLike | None = None,
    where_keys: ArrayLike | None = None,
    epsilon: ArrayLike = 1.0,
    return_solution: bool = False,
    **options: Any,
):
    """Attention in which every key gets the same total weight.

    The weights are the rows of the plan for the cost -query . key / sqrt(d), over
    their mass: softmax with the columns normalised as well (Sander et al.,
    "Sinkformers", AISTATS 2022).

    Args:
      query: [..., n, d]; heads are a leading axis.
      key: [..., m, d], the same batch.
      value: [..., m, v].
      where: [..., n] bool, the queries that count; all if None.
      where_keys: [..., m] bool, the keys that count.
      epsilon: [] temperature > 0, of the scaled products.
      return_solution: return (result, `Solution`), with the same batch axes.
      **options: tolerance, method, max_steps, early_stop as in `solve`.

    Returns:
      [..., n, v]; 0 for queries without `where`. NaN for batch elements in which
      nothing counts or input is bad, or with a marginal error above 1e-3, unless that
      is within an explicit tolerance. With early_stop=False the given number of sweeps
      is what is asked for, and nothing is made NaN.

    Raises:
      TypeError, ValueError: a wrong type or shape.

    Cost: a solve of n x m a batch element.
    """
    q = _points("query", query, "n, d")
    k = _points("key", key, "m, d", q)
    v = _points("value", value, "m, v", k, axis=-2)
    (q, a), (k, b) = _masked("where", where, q), _masked("where_keys", where_keys, k)
    v, _ = _masked("where_keys", where_keys, v)

    def one(q, k, v, a, b):
        cost = -matmul(q, k.T) / q.shape[-1] ** 0.5
        solution = solve(Dense(cost), a, b, epsilon=epsilon, **options)
        return solution.barycentric(v), solution

    depth = q.ndim - 2
    out, solution = control.vmapped(one, depth, q, k, v, a, b)
    if options.get("early_stop", True):
        return _given(out, solution, depth, return_solution)
    return (out, solution) if return_solution else out


@hints.answered
def transport_pooling(
    features: ArrayLike,
    prototypes: ArrayLike,
    *,
    where: ArrayLike | None = None,
    epsilon: ArrayLike | None = None,
    rho: ArrayLike | None = None,
    cost: str | CostFunction = "sqeuclidean",
    return_solution: bool = False,
    **options: Any,
):
    """Mean of a set's features at each prototype, which shares them with the others.

    Each prototype receives an equal mass, or about that with rho (semi-relaxed), so
    the result has one size for sets of any size (Mialon et al., "A trainable optimal
    transport embedding", ICLR 2021).

    Args:
      features: [..., n, d].
      prototypes: [k, d], one set for the batch.
      where: [..., n] bool, the features that count; all if None.
      epsilon: [] regularisation > 0 in units of cost; None: 0.05 of the standard
        deviation of the costs, element by element. That grows with the distance between
        features and prototypes: far apart every prototype gets the mean of the set.
        relative_to="within" does not grow.
      rho: [] weight of a penalty on the masses of the prototypes; None: equality.
      cost: of two points, as in `PointCloud`.
      return_solution: return (result, `Solution`), with the same batch axes.
      **options: relative_to, tolerance, method, max_steps as in `solve`.

    Returns:
      [..., k, d]; NaN for batch elements in which nothing counts or input is bad, or
      with a marginal error above 1e-3, unless that is within an explicit tolerance.

    Raises:
      TypeError, ValueError: a wrong type or shape.

    Cost: a solve of n x k a batch element.
    """
    x = _points("features", features, "n, d")
    centres = as_float("prototypes", prototypes)
    if centres.ndim != 2 or centres.shape[-1] != x.shape[-1] or centres.size == 0:
        raise ValueError(
            f"prototypes must have shape [k, {x.shape[-1]}], not empty; "
            f"got {centres.shape}"
        )
    centres = centres.astype(x.dtype)
    x, a = _masked("where", where, x)

    def one(x, a):
        cloud = PointCloud(x, centres, cost)
        solution = solve(cloud, a, epsilon=epsilon, rho_b=rho, **options)
        return solution.barycentric(x, axis=0), solution

    depth = x.ndim - 2
    out, solution = control.vmapped(one, depth, x, a)
    return _given(out, solution, depth, return_solution)
