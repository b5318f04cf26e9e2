"""Problems of transport without entropy, in NumPy."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from experiments import problems

PAIRS = 0, 1  # seeds of pairs of MNIST images


class Case(NamedTuple):
    """Costs [n, m] and masses [n], [m]."""

    name: str
    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray


def points(n: int) -> Case:
    """Two normal clouds in the plane, squared distances, equal masses."""
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 0.3
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    even = np.full(n, 1 / n)
    return Case(f"points in 2-D, {n}", cost, even, even)


def of_size(n: int) -> Iterator[Case]:
    """Random costs, points in the plane with equal and other masses, whole numbers."""
    rng = np.random.default_rng(n)
    even = np.full(n, 1 / n)
    yield Case(f"random costs, {n}", rng.random((n, n)), even, even)
    cloud = points(n)
    yield cloud
    a, b = rng.random(n), rng.random(n)
    name = f"points, random masses, {n}"
    yield Case(name, cloud.cost, a / a.sum(), b / b.sum())
    whole = rng.integers(0, n // 4, (n, n)).astype(float)
    yield Case(f"whole numbers, {n}", whole, even, even)


def cases(sizes: list[int], largest: int) -> Iterator[Case]:
    """Pairs of images, problems of each size, and points of the largest."""
    for seed in PAIRS:
        for power in (1, 2):
            found = problems.mnist(*problems.mnist_pair(seed), power)
            yield Case(f"MNIST W{power}, pair {seed}", *found)
    for n in sizes:
        yield from of_size(n)
    if largest:
        yield points(largest)


def batch(number: int, n: int) -> np.ndarray:
    """[number, n, n] random costs."""
    return np.random.default_rng(7).random((number, n, n))
