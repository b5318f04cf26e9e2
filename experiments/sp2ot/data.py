"""Digits with long-tailed classes: a few are common, most are rare."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parent.parent / "data" / "digits.npz"
CLASSES = 10
IMAGES = 480  # whatever the imbalance, so that all have one shape


def class_sizes(imbalance: float) -> np.ndarray:
    """[10] images of each class, the first `imbalance` times the last."""
    exact = imbalance ** -np.linspace(0, 1, CLASSES)
    exact *= IMAGES / exact.sum()
    ends = np.round(np.cumsum(exact)).astype(int)
    return np.diff(ends, prepend=0)


def load(seed: int, imbalance: float) -> tuple[np.ndarray, np.ndarray]:
    """Features [n, 64], centred and of length 1, and labels [n].

    The seed draws which digits are common and which images are taken.
    """
    random = np.random.default_rng(seed)
    with np.load(DATA) as data:
        images, labels = data["images"].reshape(-1, 64) / 16, data["labels"]
    sizes = class_sizes(imbalance)
    taken = [
        random.permutation(np.flatnonzero(labels == digit))[:size]
        for digit, size in zip(random.permutation(CLASSES), sizes, strict=True)
    ]
    index = random.permutation(np.concatenate(taken))
    features = images[index] - images[index].mean(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, labels[index].astype(int)
