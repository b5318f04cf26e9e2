"""The registry of small problems on which everything is tried.

Few shapes on purpose: each one compiles every method once.
"""

import numpy as np


def _normalised(x):
    return x / x.sum()


def _points(seed, n, m, d):
    r = np.random.default_rng(seed)
    x, y = r.normal(size=(n, d)), r.normal(size=(m, d))
    return ((x[:, None] - y[None]) ** 2).sum(-1)


def assignment(n=40, seed=0):
    cost = np.random.default_rng(seed).random((n, n))
    return cost, np.full(n, 1 / n), np.full(n, 1 / n)


def uneven(n=24, m=37, seed=1):
    r = np.random.default_rng(seed)
    return (
        _points(seed, n, m, 3),
        _normalised(r.random(n) + 0.1),
        _normalised(r.random(m) + 0.1),
    )


def zero_masses():
    cost, a, b = uneven(seed=2)
    a[[0, 7]], b[[3, 36]] = 0, 0
    return cost, _normalised(a), _normalised(b)


def duplicates():
    r = np.random.default_rng(3)
    x = np.repeat(r.normal(size=(8, 2)), 3, axis=0)
    y = np.resize(r.normal(size=(6, 2)), (37, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    return cost, np.full(24, 1 / 24), np.full(37, 1 / 37)


def clusters():
    r = np.random.default_rng(4)
    centres = 3 * r.normal(size=(5, 2))
    x = centres[r.integers(5, size=24)] + 0.1 * r.normal(size=(24, 2))
    y = centres[r.integers(5, size=37)] + 0.1 * r.normal(size=(37, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = np.exp(r.normal(size=24)), np.exp(r.normal(size=37))
    return cost, _normalised(a), _normalised(b)


def one_row():
    return np.random.default_rng(5).random((1, 6)), np.ones(1), np.full(6, 1 / 6)


def one_column():
    cost, a, b = one_row()
    return cost.T, b, a


ALL = {
    "assignment": assignment,
    "uneven": uneven,
    "tall": lambda: (lambda c, a, b: (c.T, b, a))(*uneven()),
    "zero_masses": zero_masses,
    "duplicates": duplicates,
    "clusters": clusters,
    "one_row": one_row,
    "one_column": one_column,
}
