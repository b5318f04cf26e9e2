"""Draws small pictures of the README: `python -m experiments.quickstart.thumbnails`.

A barycentre of a ring and a disc, beside both; and the pairs of a sparse plan.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxsns

SIDE = 32  # pixels
POINTS = 40
# In units of squared distance; the picture has side 1, the clouds have deviation 1.
EPSILON, GAMMA = 2e-3, 0.5
FOLDER = Path(__file__).parents[2] / "docs" / "assets"


def images() -> tuple[jax.Array, jax.Array]:
    """[2, SIDE * SIDE] masses of a ring and of a disc, and their barycentre."""
    line = jnp.linspace(0, 1, SIDE)
    radius = jnp.hypot(line[:, None] - 0.5, line[None, :] - 0.5)
    ring = jnp.abs(radius - 0.38) < 0.05
    disc = radius < 0.16
    masses = jnp.stack([ring, disc]).reshape(2, -1).astype(jnp.float32)
    masses = masses / masses.sum(axis=1, keepdims=True)
    costs = jaxsns.Grid((line, line)).dense().cost
    found = jaxsns.debiased_barycentre(costs, masses, epsilon=EPSILON)
    return masses, found.mass


def barycentre() -> Figure:
    """Draw the ring, the barycentre and the disc."""
    (ring, disc), middle = images()
    figure = Figure(figsize=(3, 1.1), layout="constrained")
    for axis, image in zip(figure.subplots(1, 3), (ring, middle, disc), strict=True):
        axis.imshow(np.asarray(image).reshape(SIDE, SIDE), cmap="Blues")
        axis.axis("off")
    return figure


def sparse() -> Figure:
    """Draw a line for each pair that a sparse plan joins."""
    x = jax.random.normal(jax.random.key(0), (POINTS, 2))
    y = jax.random.normal(jax.random.key(1), (POINTS, 2)) + jnp.array([4.0, 1.0])
    solution = jaxsns.solve_sparse(jaxsns.PointCloud(x, y), gamma=GAMMA)
    plan = np.asarray(solution.plan())
    figure = Figure(figsize=(3, 1.5), layout="constrained")
    axis = figure.subplots()
    for i, j in np.argwhere(plan > 0):
        share = plan[i, j] / plan.max()
        axis.plot(*np.stack([x[i], y[j]]).T, color="0.4", alpha=0.8 * share)
    axis.scatter(*np.asarray(x).T, s=12)
    axis.scatter(*np.asarray(y).T, s=12, color="tab:red")
    axis.axis("off")
    return figure


def main() -> None:
    """Make both pictures."""
    barycentre().savefig(FOLDER / "barycentre.png", dpi=160)
    sparse().savefig(FOLDER / "sparse.png", dpi=160)


if __name__ == "__main__":
    main()
