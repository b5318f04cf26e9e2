"""Plans made small enough to look at: pooled, ordered, or summed over groups."""

from typing import Any

import numpy as np

from jaxsns.partial import PartialSolution
from jaxsns.plot.axes import as_plan, concrete, one_problem
from jaxsns.solution import Solution

VECTORS = 8  # of positions that are averaged together [D68]
AVERAGINGS = 8  # of positions over partners [D68]


def max_pooled(matrix: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows and columns, each entry the largest of its block."""
    for axis, size in enumerate(matrix.shape):
        if size > most:
            starts = np.arange(most) * size // most
            matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return matrix


def barycentric_order(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([n], [m]) orders of rows and columns in which partners stand side by side.

    Each atom stands at the barycentre of its partners, up to a common factor: that is
    the first axis of correspondence analysis, found by subspace iteration. Source:
    Hill, "Reciprocal averaging", Journal of Ecology (1973).
    """
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    root = lambda mass: np.sqrt(np.where(mass > 0, mass, 1))[:, None]
    times = lambda v: matrix @ (v / root(columns)) / root(rows)
    back = lambda v: (v / root(rows)).T @ matrix / root(columns).T
    trivial = np.sqrt(rows / np.where(rows.sum() > 0, rows.sum(), 1))[:, None]
    # A start that no symmetry of the plan annuls: equal pictures for equal plans.
    basis = np.random.default_rng(0).normal(size=(rows.size, min(VECTORS, rows.size)))
    basis = basis.astype(matrix.dtype)
    for _ in range(AVERAGINGS):
        basis = np.linalg.qr(basis - trivial @ (trivial.T @ basis))[0]
        basis = times(back(basis).T)
    basis = np.linalg.qr(basis - trivial @ (trivial.T @ basis))[0]
    inner = back(basis)
    place = basis @ np.linalg.svd(inner, full_matrices=False)[0][:, :1]
    other = back(place).T
    # Atoms without mass have no partner, and stand last.
    last = lambda x, mass: np.argsort(
        np.where(mass > 0, (x / root(mass))[:, 0], np.inf), kind="stable"
    )
    return last(place, rows), last(other, columns)


def _labels(name: str, groups: Any, letter: str, size: int):
    """Names of the groups, and [size, groups] 0 or 1: which atom is in which."""
    groups = concrete(name, groups)
    if groups.shape != (size,):
        raise ValueError(
            f"{name} must have shape [{letter}] = [{size}]; got {groups.shape}"
        )
    names, index = np.unique(groups, return_inverse=True)
    members = np.zeros((size, names.size), np.float32)
    members[np.arange(size), index.reshape(-1)] = 1
    return [str(x) for x in names], members


def group_masses(subject: Any, groups_x: Any, groups_y: Any):
    """[p, q] mass between groups of rows and of columns, and the names of both.

    Of a solution by a product with its plan, which is not formed.
    """
    solved = isinstance(subject, Solution | PartialSolution)
    if solved:
        subject = one_problem(subject)
        n, m = subject.f.shape[-1], subject.g.shape[-1]
    else:
        subject = as_plan(subject)
        n, m = subject.shape
    names_x, x = _labels("groups_x", groups_x, "n", n)
    names_y, y = _labels("groups_y", groups_y, "m", m)
    moved = np.asarray(subject.apply(y)) if solved else subject @ y
    return x.T @ moved, names_x, names_y
