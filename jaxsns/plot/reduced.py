"""Plans made small enough to look at: pooled, ordered, or summed over groups."""

from typing import Any

import numpy as np

from jaxsns.partial import PartialSolution
from jaxsns.plot.axes import as_plan, concrete, one_problem
from jaxsns.solution import Solution

AVERAGINGS = 30  # of positions over partners [D68]


def max_pooled(matrix: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows and columns, each entry the largest of its block."""
    for axis, size in enumerate(matrix.shape):
        if size > most:
            starts = np.arange(most) * size // most
            matrix = np.maximum.reduceat(matrix, starts, axis=axis)
    return matrix


def barycentric_order(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """([n], [m]) orders of rows and columns in which partners stand side by side.

    Positions are averaged over the partners, to and fro, and freed of their mean. That
    is the power method for the first axis of correspondence analysis. Source: Hill,
    "Reciprocal averaging", Journal of Ecology (1973).
    """
    rows, columns = matrix.sum(axis=1), matrix.sum(axis=0)
    safe = lambda mass: np.where(mass > 0, mass, 1)
    # A start that no symmetry of the plan annuls: equal pictures for equal plans.
    place = np.random.default_rng(0).normal(size=rows.size).astype(matrix.dtype)
    other = np.zeros_like(columns)
    for _ in range(AVERAGINGS):
        place = place - (rows * place).sum() / safe(rows.sum())
        place = place / safe(np.abs(place).max())
        other = (place @ matrix) / safe(columns)
        place = (matrix @ other) / safe(rows)
    # Atoms without mass have no partner, and stand last.
    last = lambda x, mass: np.argsort(np.where(mass > 0, x, np.inf), kind="stable")
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
