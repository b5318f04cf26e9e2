"""Problems of transport without entropy, in NumPy."""

from typing import NamedTuple

import numpy as np


class Case(NamedTuple):
    """Costs [n, n] and masses [n]."""

    name: str
    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray


def cases(sizes: list[int]) -> list[Case]:
    """Random costs, points in the plane with equal and other masses, whole numbers."""
    out = []
    for n in sizes:
        rng = np.random.default_rng(n)
        even = np.full(n, 1 / n)
        out.append(Case(f"random costs, {n}", rng.random((n, n)), even, even))
        x, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)) + 0.3
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        out.append(Case(f"points in 2-D, {n}", cost, even, even))
        a, b = rng.random(n), rng.random(n)
        out.append(Case(f"points, random masses, {n}", cost, a / a.sum(), b / b.sum()))
        whole = rng.integers(0, n // 4, (n, n)).astype(float)
        out.append(Case(f"whole numbers, {n}", whole, even, even))
    return out


def batch(number: int, n: int) -> np.ndarray:
    """[number, n, n] random costs."""
    return np.random.default_rng(7).random((number, n, n))
