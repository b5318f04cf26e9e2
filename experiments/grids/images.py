"""Pictures and volumes with positive masses, and the error of potentials on them."""

from pathlib import Path

import numpy as np
from scipy.special import logsumexp

DATA = Path(__file__).parents[1] / "data"
FLOOR = 0.05  # mass of each pixel, of that of a bump's top, before normalising


def bumps(size: int, dimension: int, seed: int) -> np.ndarray:
    """Four Gaussian bumps of random place and width on a floor."""
    r = np.random.default_rng(seed)
    axes = np.meshgrid(*[(np.arange(size) + 0.5) / size] * dimension, indexing="ij")
    out = np.full((size,) * dimension, FLOOR)
    for _ in range(4):
        centre, width = r.random(dimension), 0.05 + 0.15 * r.random()
        square = sum((x - c) ** 2 for x, c in zip(axes, centre, strict=True))
        out += np.exp(-square / (2 * width**2))
    return out / out.sum()


def texture(size: int, seed: int) -> np.ndarray:
    """Random picture with the 1/f amplitudes of photographs, from 0.02 to 1.02."""
    r = np.random.default_rng(seed)
    k = np.fft.fftfreq(size)
    frequency = np.hypot(k[:, None], k[None])
    frequency[0, 0] = 1
    z = np.fft.ifft2(np.fft.fft2(r.normal(size=(size, size))) / frequency).real
    z = (z - z.min()) / (z.max() - z.min()) + 0.02
    return z / z.sum()


def digit(size: int, number: int) -> np.ndarray:
    """An MNIST digit, enlarged linearly; most pixels have no mass."""
    image = np.load(DATA / "mnist_sample.npz")["images"][number].astype(float)
    old, new = np.arange(28), np.linspace(0, 27, size)
    tall = np.stack([np.interp(new, old, column) for column in image.T], axis=1)
    out = np.stack([np.interp(new, old, row) for row in tall])
    return out / out.sum()


def _soft(log: np.ndarray, axes: list[np.ndarray]) -> np.ndarray:
    """Log of sums over grid points j of exp(log_j - C_ij), axis by axis, in float64."""
    for cost in axes:
        first = np.moveaxis(log, 0, -1)
        log = np.stack([logsumexp(first - row, axis=-1) for row in cost], axis=-1)
    return log


def true_error(x, a, b, f, g, epsilon: float) -> float:
    """L1 error of both marginals over the mass, squared distances, by NumPy alone."""
    axes = [(v[:, None] - v[None]) ** 2 / epsilon for v in np.asarray(x, float)]
    f, g = (np.asarray(v, float).reshape(a.shape) / epsilon for v in (f, g))
    rows, columns = np.exp(f + _soft(g, axes)), np.exp(g + _soft(f, axes))
    return float((np.abs(rows - a).sum() + np.abs(columns - b).sum()) / a.sum())
