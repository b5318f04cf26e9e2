"""Penalties of a plan for `solve_penalised`: pytrees that map a plan to a number.

Any differentiable convex function of a plan [n, m] is one. These two are those of
domain adaptation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.numerics import matmul

__all__ = ["GroupLasso", "Laplacian"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("labels", "weight"),
    meta_fields=("classes",),
)
@dataclasses.dataclass(frozen=True)
class GroupLasso:
    """Each column should get its mass from rows of one class.

        weight sum_jc |P_Ic,j|_2,   I_c the rows of class c

    Attributes:
      labels: [n] integers, classes of the rows from 0 on; -1 is in no class.
      classes: number of classes, static.
      weight: [] factor >= 0, in units of cost.

    Source: Courty et al., "Optimal transport for domain adaptation" (PAMI 2017); POT
      has it as `ot.da.SinkhornL1l2Transport`.

    Example:
      >>> penalty = jaxsns.penalties.GroupLasso(labels, classes=10, weight=0.1)
    """

    labels: ArrayLike
    classes: int
    weight: ArrayLike = 1.0

    def __call__(self, plan: jax.Array) -> jax.Array:
        """[] penalty of a plan [n, m]. O(n m)."""
        labels = jnp.asarray(self.labels)
        # Rows without a class are in one more, which does not count.
        labels = jnp.where(labels < 0, self.classes, labels)
        number = self.classes + 1
        # Squares of small masses would be 0: norms are taken of shares of the largest.
        largest = jax.ops.segment_max(jax.lax.stop_gradient(plan), labels, number)
        scale = jnp.where(largest > 0, largest, 1)
        share = plan / scale[labels]
        squares = jax.ops.segment_sum(share**2, labels, number)[:-1]
        # The derivative of an empty group is 0, one of its subgradients.
        norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        return jnp.asarray(self.weight, plan.dtype) * jnp.sum(scale[:-1] * norms)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("similarity", "targets", "masses", "sources", "weight"),
    meta_fields=("axis",),
)
@dataclasses.dataclass(frozen=True)
class Laplacian:
    """Similar rows should be sent to near places.

        weight / 2 sum_ik a_i a_k S_ik |T_i - T_k|^2,   T_i = sum_j P_ij y_j / a_i

    Attributes:
      similarity: [n, n] S >= 0, symmetric: how alike two rows are.
      targets: [m, d] points y.
      masses: [n] a, of the rows; None: uniform with total 1.
      sources: [n, d] points x; given, T_i - x_i takes the place of T_i: similar rows
        should move alike.
      weight: [] factor >= 0, in units of cost over squared distance.
      axis: 1; 0 for columns: S is [m, m], targets are the points x [n, d] of the rows,
        masses those of the columns [m], and sources the points y.

    Source: Ferradans et al., "Regularized discrete optimal transport" (SIAM J. Imaging
      Sciences 2014); POT has it as `ot.da.EMDLaplaceTransport`, without entropy.

    Example:
      >>> near = jnp.exp(-((x[:, None] - x[None, :]) ** 2).sum(-1))
      >>> penalty = jaxsns.penalties.Laplacian(near, y, weight=0.1)
    """

    similarity: ArrayLike
    targets: ArrayLike
    masses: ArrayLike | None = None
    sources: ArrayLike | None = None
    weight: ArrayLike = 1.0
    axis: int = 1

    def __call__(self, plan: jax.Array) -> jax.Array:
        """[] penalty of a plan [n, m]. O(n m d + n n d)."""
        plan = plan if self.axis == 1 else plan.T
        similarity, targets = (
            jnp.asarray(v, plan.dtype) for v in (self.similarity, self.targets)
        )
        size = plan.shape[0]
        if self.masses is None:
            masses = jnp.full((size,), 1 / size, plan.dtype)
        else:
            masses = jnp.asarray(self.masses, plan.dtype)
        present = masses > 0
        inverse = jnp.where(present, 1 / jnp.where(present, masses, 1), 0)
        place = inverse[:, None] * matmul(plan, targets)
        if self.sources is not None:
            place = place - jnp.asarray(self.sources, plan.dtype)
        # A row without mass is sent nowhere, and does not count.
        similarity = similarity * masses[:, None] * masses[None, :]
        # Around their mean, which changes no difference: fewer digits are lost.
        place = place - jnp.mean(place, axis=0, keepdims=True)
        degree = jnp.sum(similarity, axis=1, keepdims=True)
        pulled = degree * place - matmul(similarity, place)
        return jnp.asarray(self.weight, plan.dtype) * jnp.sum(place * pulled)
