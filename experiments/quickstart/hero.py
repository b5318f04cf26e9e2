"""Draws the picture at the top of the README: `python -m experiments.quickstart.hero`.

Points follow the gradient of the Sinkhorn divergence to a ring. The starting points
are a Gaussian cloud; every one of them is drawn with its way so far.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxsns

POINTS, FRAMES = 150, (0, 4, 12, 80)
RATE = 0.06  # share of the gradient per unit of mass that a point follows in a step
EPSILON = 0.02  # in units of squared distance; the ring has radius 1
OUTPUT = Path(__file__).parents[2] / "docs" / "assets" / "hero.png"


def clouds() -> tuple[jax.Array, jax.Array]:
    """[POINTS, 2] where the points start, and the ring."""
    random = np.random.default_rng(0)
    start = 0.3 * random.normal(size=(POINTS, 2)) + np.array([-0.4, 0.1])
    angle = random.uniform(0, 2 * np.pi, POINTS)
    radius = 1 + 0.04 * random.normal(size=POINTS)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    return jnp.asarray(start, jnp.float32), jnp.asarray(ring, jnp.float32)


@jax.jit
def flow(start: jax.Array, ring: jax.Array) -> jax.Array:
    """[steps + 1, POINTS, 2] positions along gradient descent."""

    def step(x, _):
        loss = lambda x: jaxsns.sinkhorn_divergence(x, ring, epsilon=EPSILON).value
        x = x - RATE * POINTS * jax.grad(loss)(x)
        return x, x

    last = jax.lax.scan(step, start, length=max(FRAMES))[1]
    return jnp.concatenate([start[None], last])


def draw(path: np.ndarray, ring: np.ndarray) -> Figure:
    """Draw one panel a frame."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    color = np.arctan2(*(path[-1] - path[-1].mean(axis=0)).T)
    axes = figure.subplots(1, len(FRAMES), sharex=True, sharey=True)
    for axis, frame in zip(axes, FRAMES, strict=True):
        axis.scatter(*ring.T, s=22, color="0.85")
        for point in range(POINTS):
            axis.plot(*path[: frame + 1, point].T, color="0.75", linewidth=0.4)
        axis.scatter(*path[frame].T, s=12, c=color, cmap="hsv", alpha=0.8)
        axis.set_title(f"step {frame}", fontsize=10)
        axis.set_aspect("equal")
        axis.axis("off")
    return figure


def main() -> None:
    """Make the picture."""
    start, ring = clouds()
    path = np.asarray(flow(start, ring))
    OUTPUT.parent.mkdir(exist_ok=True)
    draw(path, np.asarray(ring)).savefig(OUTPUT, dpi=160)


if __name__ == "__main__":
    main()
