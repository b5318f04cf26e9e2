"""k-means, the usual baseline; its first guess is where all heads start."""

import numpy as np


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(1)[:, None] + (centres**2).sum(1)[None, :]
    return np.maximum(squares - 2 * points @ centres.T, 0)


def seeds(points: np.ndarray, k: int, random: np.random.Generator) -> np.ndarray:
    """[k, d] points far apart, by k-means++ (Arthur and Vassilvitskii, 2007)."""
    centres = points[random.integers(len(points))][None]
    for _ in range(k - 1):
        nearest = _squared(points, centres).min(1)
        new = random.choice(len(points), p=nearest / nearest.sum())
        centres = np.concatenate([centres, points[new][None]])
    return centres


def _lloyd(points: np.ndarray, centres: np.ndarray, steps: int = 300):
    found = _squared(points, centres).argmin(1)
    for _ in range(steps):
        members = [points[found == j] for j in range(len(centres))]
        means = [
            x.mean(0) if len(x) else c for x, c in zip(members, centres, strict=True)
        ]
        centres = np.stack(means)
        new = _squared(points, centres).argmin(1)
        if np.array_equal(new, found):
            break
        found = new
    return found, _squared(points, centres).min(1).sum()


def kmeans(points: np.ndarray, k: int, seed: int, restarts: int = 10) -> np.ndarray:
    """Clusters [n] of the best of some restarts."""
    random = np.random.default_rng([seed, 7])
    tried = [_lloyd(points, seeds(points, k, random)) for _ in range(restarts)]
    return min(tried, key=lambda run: run[1])[0]
