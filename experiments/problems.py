"""Transport problems that the experiments share, so that all mean the same by a name.

Every maker returns `(cost [n, m], a [n], b [m])` in float64 NumPy with the largest
cost 1 and total masses 1, the setting of the SNS paper (Tang et al., ICLR 2024).
"""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parent / "data" / "mnist_sample.npz"
SIDE = 28  # pixels
BACKGROUND = 0.01  # added to each pixel in [0, 1], so that no mass is zero

Problem = tuple[np.ndarray, np.ndarray, np.ndarray]
Image = int | tuple[int, int]


def random_assignment(n: int, seed: int) -> Problem:
    """Random assignment: independent costs uniform on [0, 1], equal masses."""
    cost = np.random.default_rng(seed).uniform(size=(n, n))
    mass = np.full(n, 1 / n)
    return cost / cost.max(), mass, mass


def mnist_image(image: Image, background: float = BACKGROUND) -> np.ndarray:
    """[784] masses of an image, by its index or by (digit, which of that digit)."""
    with np.load(DATA) as data:
        images, labels = data["images"], data["labels"]
    if isinstance(image, tuple):
        digit, which = image
        image = int(np.flatnonzero(labels == digit)[which])
    mass = images[image].astype(np.float64).ravel() / 255 + background
    return mass / mass.sum()


def pixel_positions() -> np.ndarray:
    """[784, 2] row and column of each pixel, in pixels."""
    axis = np.arange(SIDE, dtype=np.float64)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def mnist(
    first: Image, second: Image, power: int, background: float = BACKGROUND
) -> Problem:
    """Two digits; power 1: L1 distance of pixels (W1), 2: squared Euclidean (W2).

    background: added to each pixel in [0, 1]; 0 leaves masses that are zero.
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2; got {power}")
    position = pixel_positions()
    difference = np.abs(position[:, None] - position[None])
    cost = np.sum(difference**power, axis=-1)
    a, b = mnist_image(first, background), mnist_image(second, background)
    return cost / cost.max(), a, b


def mnist_pair(seed: int) -> tuple[int, int]:
    """Indices of two images of different digits, drawn from a seed."""
    with np.load(DATA) as data:
        labels = data["labels"]
    random = np.random.default_rng(seed)
    first = int(random.integers(labels.size))
    second = int(random.choice(np.flatnonzero(labels != labels[first])))
    return first, second


def without_zeros(problem: Problem) -> Problem:
    """Leave out the rows and columns of zero mass, for solvers that refuse them."""
    cost, a, b = problem
    cost = cost[a > 0][:, b > 0]
    return cost / cost.max(), a[a > 0], b[b > 0]


def wide_masses(n: int, seed: int, orders: float = 6.0) -> Problem:
    """2-D normal clouds, log-normal masses over `orders` of magnitude."""
    cost, _, _ = gaussian_points(n, n, 2, seed)
    random = np.random.default_rng([seed, 1])

    def masses() -> np.ndarray:
        log = random.normal(size=n)
        mass = 10 ** (orders * (log - log.min()) / np.ptp(log))
        return mass / mass.sum()

    return cost, masses(), masses()


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    cost = np.zeros((len(x), len(y)))
    for u, v in zip(x.T, y.T, strict=True):
        cost += (u[:, None] - v[None]) ** 2
    return cost / cost.max()


def gaussian_points(n: int, m: int, d: int, seed: int) -> Problem:
    """Two standard normal clouds in d dimensions, squared distance, equal masses."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(n, d)), random.normal(size=(m, d))
    return _squared(x, y), np.full(n, 1 / n), np.full(m, 1 / m)


def clustered(n: int, seed: int) -> Problem:
    """Tight clusters far apart with log-normal masses: a badly conditioned problem."""
    random = np.random.default_rng(seed)

    def cloud() -> np.ndarray:
        centres = 3 * random.normal(size=(10, 2))
        return centres[random.integers(10, size=n)] + 0.1 * random.normal(size=(n, 2))

    x, y = cloud(), cloud()
    a, b = random.lognormal(size=n), random.lognormal(size=n)
    return _squared(x, y), a / a.sum(), b / b.sum()


def exponential_mixture(n: int) -> Problem:
    """Exp(1) against 0.2 N(1, 0.2) + 0.8 N(3, 0.5) (variances), grid on [0, 5].

    Squared distance. Source: Tang and Qiu, NeurIPS 2024, first synthetic problem.
    """
    x = np.linspace(0, 5, n)[:, None]

    def normal(mean: float, variance: float) -> np.ndarray:
        return np.exp(-((x[:, 0] - mean) ** 2) / (2 * variance)) / np.sqrt(variance)

    a = np.exp(-x[:, 0])
    b = 0.2 * normal(1, 0.2) + 0.8 * normal(3, 0.5)
    return _squared(x, x), a / a.sum(), b / b.sum()
