"""The layer as published: matrix scalings, and a gradient through every one of them.

Zhang et al., "P2OT" (ICLR 2024), Algorithm 1; OTSurv uses it as a layer. A virtual
column of cost zero takes what is not assigned. All patches of the bag are real.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.otsurv.layer import EPSILON, GAMMA

STEPS = 1000  # the most that the published loop makes
CHANGE = 1e-6  # it stops when the scalings of the columns change by less


def plan(cost: jax.Array, share: jax.Array, steps: int = STEPS) -> jax.Array:
    """[n, k] plan after a fixed number of scalings; differentiable by unrolling."""
    n, k = cost.shape
    kernel = jnp.exp(-jnp.pad(cost, ((0, 0), (0, 1))) / EPSILON)
    columns = jnp.append(jnp.broadcast_to(share / k, (k,)), 1 - share)

    def row_scaling(right):
        return (1 / n) / (kernel @ right)

    def sweep(right, _):
        right = columns / (row_scaling(right) @ kernel)
        softened = right[:-1] ** (GAMMA / (GAMMA + EPSILON))
        return right.at[:-1].set(softened), None

    # One more scaling of the rows than published, so that these are exact.
    right, _ = jax.lax.scan(sweep, jnp.ones(k + 1, cost.dtype), length=steps)
    return (row_scaling(right)[:, None] * kernel * right[None])[:, :-1]


def steps_taken(cost: np.ndarray, share: float) -> int:
    """Scalings until the published rule stops, in float64."""
    n, k = cost.shape
    kernel = np.exp(-np.c_[cost, np.zeros(n)] / EPSILON)
    columns = np.r_[np.full(k, share / k), 1 - share]
    right = np.ones(k + 1)
    for step in range(1, STEPS + 1):
        new = columns / (kernel.T @ (1 / n / (kernel @ right)))
        new[:-1] **= GAMMA / (GAMMA + EPSILON)
        if np.linalg.norm(new - right) < CHANGE:
            return step
        right = new
    return STEPS
