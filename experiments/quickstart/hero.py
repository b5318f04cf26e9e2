"""Draws the pictures at the top of the README and of the site's first page.

Points follow the gradient of the Sinkhorn divergence to a ring. The starting points
are a Gaussian cloud; every one of them is drawn with its way so far. The README has
the animation, and the site four of its frames: `python -m experiments.quickstart.hero`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import jaxsns

POINTS, FRAMES = 150, (0, 4, 12, 80)
MOVING = (*range(20), *range(20, 81, 5))  # steps of the animation
TIME, LAST = 80, 800  # milliseconds of a frame, and of the last: 3.4 s in all
PLAYS, COLOURS = 3, 64  # it does not move for ever; colours of a frame
RATE = 0.06  # share of the gradient per unit of mass that a point follows in a step
EPSILON = 0.02  # in units of squared distance; the ring has radius 1
OUTPUT = Path(__file__).parents[2] / "docs" / "assets"


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


def frame(axis: Axes, path: np.ndarray, ring: np.ndarray, step: int) -> None:
    """Draw the points after some steps, with their ways so far."""
    color = np.arctan2(*(path[-1] - path[-1].mean(axis=0)).T)
    axis.scatter(*ring.T, s=22, color="0.85")
    for point in range(POINTS):
        axis.plot(*path[: step + 1, point].T, color="0.75", linewidth=0.4)
    axis.scatter(*path[step].T, s=12, c=color, cmap="hsv", alpha=0.8)
    axis.set_title(f"step {step}", fontsize=10)
    axis.set(aspect="equal", xlim=(-1.4, 1.2), ylim=(-1.2, 1.2))
    axis.axis("off")


def strip(path: np.ndarray, ring: np.ndarray) -> Figure:
    """Draw one panel a frame."""
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    axes = figure.subplots(1, len(FRAMES), sharex=True, sharey=True)
    for axis, step in zip(axes, FRAMES, strict=True):
        frame(axis, path, ring, step)
    return figure


def animation(path: np.ndarray, ring: np.ndarray) -> list[Image.Image]:
    """Draw the way in one panel, an image a step."""
    images = []
    for step in MOVING:
        figure = Figure(figsize=(3.4, 3.4), dpi=110, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        frame(figure.subplots(), path, ring, step)
        canvas.draw()
        image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        images.append(image.quantize(COLOURS))
    return images


def main() -> None:
    """Make the pictures."""
    start, ring = clouds()
    path, ring = np.asarray(flow(start, ring)), np.asarray(ring)
    OUTPUT.mkdir(exist_ok=True)
    strip(path, ring).savefig(OUTPUT / "hero.png", dpi=160)
    first, *others = animation(path, ring)
    times = [*[TIME] * len(others), LAST]
    name = OUTPUT / "hero.gif"
    first.save(name, save_all=True, append_images=others, duration=times, loop=PLAYS)


if __name__ == "__main__":
    main()
