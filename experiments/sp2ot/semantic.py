"""Which images mean the same: a graph of nearest neighbours."""

import numpy as np


def similarity(features: np.ndarray, neighbours: int = 20) -> np.ndarray:
    """[n, n] similarity S: symmetric and positive semi-definite.

    Gaussian weights of the nearest neighbours, of the width of their mean distance,
    as in SP2OT; scaled by the roots of their sums, so that a row has about 1 outside
    the diagonal. The tangent of -<S, Q Q^T> is above it only where S is positive
    semi-definite, which a graph of neighbours is not: its diagonal is raised by what
    is missing.
    """
    squares = (features**2).sum(1)
    distance = squares[:, None] + squares[None, :] - 2 * features @ features.T
    distance = np.maximum(distance, 0)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :neighbours]
    kept = np.take_along_axis(distance, nearest, axis=1)
    weights = np.zeros_like(distance)
    np.put_along_axis(weights, nearest, np.exp(-kept / kept.mean()), axis=1)
    weights = (weights + weights.T) / 2
    root = 1 / np.sqrt(weights.sum(1))
    scaled = weights * np.outer(root, root)
    lowest = np.linalg.eigvalsh(scaled)[0]
    return scaled + max(0.0, -lowest) * np.eye(len(scaled))
