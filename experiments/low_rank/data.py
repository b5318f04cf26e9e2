"""Pairs of clouds, the same for all contenders."""

import numpy as np

CASES = {  # kind, points, dimension, rank
    "normal, 2-D, n = 1000": ("normal", 1000, 2, 10),
    "clusters, 2-D, n = 1000": ("clusters", 1000, 2, 10),
    "normal, 10-D, n = 1000": ("normal", 1000, 10, 10),
    "clusters, 10-D, n = 1000, rank 50": ("clusters", 1000, 10, 50),
    "normal, 2-D, n = 5000": ("normal", 5000, 2, 10),
    "clusters, 10-D, n = 5000, rank 50": ("clusters", 5000, 10, 50),
}


def clouds(kind: str, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Two clouds [n, d]: normal ones, or eight clusters each at random centres."""
    random = np.random.default_rng(0)
    if kind == "normal":
        return random.normal(size=(n, d)), 0.7 * random.normal(size=(n, d)) + 1
    centres = 3 * random.normal(size=(2, 8, d))
    place = random.integers(8, size=(2, n))
    noise = 0.4 * random.normal(size=(2, n, d))
    return tuple(c[k] + z for c, k, z in zip(centres, place, noise, strict=True))


def judged(q: np.ndarray, r: np.ndarray, g: np.ndarray, x, y) -> tuple[float, float]:
    """Cost of the plan Q diag(1 / g) R^T, and the L1 error of its marginals."""
    scale = np.where(g > 0, 1 / np.where(g > 0, g, 1), 0)
    rows, columns = q @ (scale * r.sum(axis=0)), r @ (scale * q.sum(axis=0))
    inner = ((q.T @ x) * scale[:, None] * (r.T @ y)).sum()
    cost = rows @ (x**2).sum(axis=1) + columns @ (y**2).sum(axis=1) - 2 * inner
    n, m = len(x), len(y)
    return cost, abs(rows - 1 / n).sum() + abs(columns - 1 / m).sum()
