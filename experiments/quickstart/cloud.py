"""Cloud: gradient descent on positions, through the solver, moves points onto a ring.

The entropic value alone is biased: its minimum is a shrunken cloud. The debiased
value (Sinkhorn divergence) is zero exactly where the clouds agree.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import jaxsns

POINTS = 200
STEPS = 150
RATE = 0.05
BLUR = 0.01  # epsilon over the mean cost of the first clouds


def divergence(x: jax.Array, y: jax.Array, epsilon: jax.Array):
    """Debiased transport cost of two clouds [n, d] and [m, d], and if all converged."""

    def solve(x: jax.Array, y: jax.Array) -> jaxsns.Solution:
        return jaxsns.solve(jaxsns.PointCloud(x, y), epsilon=epsilon)

    both, left, right = solve(x, y), solve(x, x), solve(y, y)
    value = both.value - (left.value + right.value) / 2
    return value, both.converged & left.converged & right.converged


class Path2D(NamedTuple):
    """What the figure needs."""

    before: np.ndarray  # [n, 2]
    after: np.ndarray  # [n, 2]
    target: np.ndarray  # [m, 2]
    loss: np.ndarray  # [steps]


def run() -> Path2D:
    """Move the points with Adam; print the loss at both ends."""
    random = np.random.default_rng(0)
    first = jnp.asarray(0.3 * random.normal(size=(POINTS, 2)))
    angle = random.uniform(0, 2 * np.pi, POINTS)
    radius = 1 + 0.05 * random.normal(size=POINTS)
    target = jnp.asarray(np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None])
    # Measured once: the loss must not change its meaning while the points move.
    clouds = jaxsns.PointCloud(first, target)
    epsilon = jaxsns.make_problem(clouds, epsilon=BLUR, relative_to="mean").epsilon
    optimiser = optax.adam(RATE)

    @jax.jit
    def step(x, state):
        gradient = jax.value_and_grad(divergence, has_aux=True)
        (loss, converged), slope = gradient(x, target, epsilon)
        change, state = optimiser.update(slope, state)
        return optax.apply_updates(x, change), state, loss, converged

    x, state = first, optimiser.init(first)
    losses, good = [], True
    for _ in range(STEPS):
        x, state, loss, converged = step(x, state)
        losses.append(float(loss))
        good &= bool(converged)
    print(f"  loss {losses[0]:.4f} -> {losses[-1]:.6f} in {STEPS} steps of Adam")
    print(f"  every solve converged: {good}; epsilon {float(epsilon):.4f}")
    return Path2D(*map(np.asarray, (first, x, target, losses)))


def scatter(axis, points: np.ndarray, target: np.ndarray, title: str) -> None:
    """Draw points over their target."""
    axis.scatter(*target.T, s=14, color="0.7", label="target")
    axis.scatter(*points.T, s=10, color="C0", label="points")
    axis.set(title=title, xlabel="x / length", ylabel="y / length", aspect="equal")


def draw_path(result: Path2D, path: Path, title: str, label: str) -> None:
    """Draw before, after and the loss."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    scatter(left, result.before, result.target, "before")
    scatter(middle, result.after, result.target, "after")
    right.semilogy(result.loss)
    every = np.concatenate([result.before, result.after, result.target])
    low, high = every.min() - 0.1, every.max() + 0.1
    for axis in (left, middle):
        axis.set(xlim=(low, high), ylim=(low, high))
    right.set(title="loss", xlabel=f"{label} / steps", ylabel="divergence / length²")
    right.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=2
    )
    figure.suptitle(title)
    figure.savefig(path, dpi=110)


def draw(result: Path2D, path: Path) -> None:
    """Draw the cloud before and after."""
    draw_path(result, path, "A cloud of points moved onto a ring", "gradient descent")
