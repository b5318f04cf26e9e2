"""What is trained on a mixture: ridge regression with a Gaussian kernel."""

import numpy as np

from experiments.projektor.data import CLASSES, Images

WIDTH = 2.0  # of the kernel, in the unit of the features
RIDGE = 0.3


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, m] Gaussian kernel."""
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :]
    return np.exp((x @ y.T - squares / 2) / WIDTH**2)


def counts(p: np.ndarray, size: int) -> np.ndarray:
    """[sources] whole images of each source that add up to `size`."""
    exact = np.asarray(p) * size
    whole = np.floor(exact + 1e-9).astype(int)
    most = np.argsort(-(exact - whole), kind="stable")
    whole[most[: size - whole.sum()]] += 1
    return whole


def mean_accuracy(
    sources: list[Images], p, size: int, target: Images, draws: int, seed: int
) -> float:
    """Accuracy on the target after training on `size` images, mean over draws.

    A draw takes images of each source without replacement.
    """
    random = np.random.default_rng([seed, size])
    found = []
    for _ in range(draws):
        taken = [
            (source, random.permutation(len(source.labels))[:count])
            for source, count in zip(sources, counts(p, size), strict=True)
        ]
        x = np.concatenate([source.features[index] for source, index in taken])
        labels = np.concatenate([source.labels[index] for source, index in taken])
        matrix = kernel(x, x) + RIDGE * np.eye(len(x))
        coefficients = np.linalg.solve(matrix, np.eye(CLASSES)[labels])
        guess = (kernel(target.features, x) @ coefficients).argmax(1)
        found.append(np.mean(guess == target.labels))
    return float(np.mean(found))
