"""Curves and bars: marginals, potentials, a batch."""

from typing import Any

import numpy as np

from jaxsns.partial import PartialSolution
from jaxsns.plot.axes import axes, concrete, one_problem
from jaxsns.problem.arguments import as_axis
from jaxsns.solution import Solution
from jaxsns.status import Status

EQUAL = 1e-6  # relative difference up to which masses are equal [D68]
MANY = 500  # atoms, above which their dots are smaller [D68]
# One colour a status, in the order of the statuses; converged is the quiet one.
COLOURS = ("C7", "C0", "C1", "C3", "C4", "C5", "C6", "C8")


def marginals(
    solution: Solution | PartialSolution,
    axis: int = 1,
    *,
    against: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the masses that the plan has against those that were wanted.

    Args:
      solution: of one problem.
      axis: 1 for the rows (a), 0 for the columns (b).
      against: "wanted" puts the wanted mass on the horizontal axis, so that atoms whose
        marginal is met lie on the diagonal; "index" the number of the atom; None:
        "index" if all wanted masses are equal.
      ax: matplotlib axes, or None.

    Returns:
      The axes: dots for the sums of the plan, a line for what was wanted.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: not a solution of one
        problem, axis not 0 or 1, an unknown `against`, traced.
    """
    if against not in (None, "wanted", "index"):
        raise ValueError(f"against must be 'wanted' or 'index'; got {against!r}")
    solution, rows = one_problem(solution), as_axis(axis) == 1
    sums = np.asarray(solution.marginals()[0 if rows else 1])
    whole = solution.extended if isinstance(solution, PartialSolution) else solution
    given = np.asarray(whole.problem.a if rows else whole.problem.b)[: sums.size]
    ax = axes(ax)
    name, letter = ("a", "row i") if rows else ("b", "column j")
    if against is None:
        against = "index" if np.ptp(given) <= EQUAL * given.max() else "wanted"
    if against == "wanted":
        ends = np.array([given.min(), given.max()])
        ax.plot(ends, ends, color="0.6", label="wanted = obtained", zorder=1)
        place, words = given, f"wanted mass ({name})"
    else:
        place, words = np.arange(sums.size), letter
        ax.plot(place, given, color="0.2", label=f"wanted ({name})", zorder=3)
    size = 6 if sums.size <= MANY else 2
    ax.plot(place, sums, "C0.", markersize=size, label="obtained (plan)", zorder=2)
    ax.set(xlabel=words, ylabel="mass")
    # Equal masses would lie on the frame, whose lower end is 0.
    ax.update_datalim([(place[0], 0)])
    ax.autoscale_view()
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax


def potentials(
    solution: Solution | PartialSolution,
    x: Any = None,
    y: Any = None,
    *,
    ax: Any = None,
) -> Any:
    """Draw f and g against index, or against positions on a line.

    Args:
      solution: of one problem. Atoms without mass, whose potential is -inf, are left
        out.
      x: [n] positions of the rows; None: 0 to n - 1.
      y: [m] positions of the columns.
      ax: matplotlib axes, or None.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: not a solution of one
        problem, positions of a wrong shape, traced.
    """
    solution = one_problem(solution)
    drawn = []
    for name, place, values in (("x", x, solution.f), ("y", y, solution.g)):
        values = np.asarray(values)
        place = np.arange(values.size) if place is None else concrete(name, place)
        if place.shape != values.shape:
            raise ValueError(
                f"{name} must have shape {values.shape}; got {place.shape}"
            )
        known = np.isfinite(values)
        order = np.argsort(place[known], kind="stable")
        drawn.append((place[known][order], values[known][order]))
    ax = axes(ax)
    # A line between atoms whose order means nothing would only confuse.
    ax.plot(*drawn[0], "C0." if x is None else "C0.-", label="f (rows)")
    ax.plot(*drawn[1], "C3." if y is None else "C3.-", label="g (columns)")
    ax.set(
        xlabel="index of atom" if x is None and y is None else "position",
        ylabel="potential",
    )
    ax.legend()
    return ax


def batch(
    solution: Solution | PartialSolution,
    *,
    tolerance: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw the error of each element of a batch, coloured by how it ended.

    Args:
      solution: result of a `vmap`; nested batches are flattened.
      tolerance: drawn as a line if given.
      ax: matplotlib axes, or None.

    Returns:
      The axes. Lanes without an error (NaN: bad input) stand at the upper edge, those
      with an error of zero at the lower one.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: not a solution with
        lanes, traced.
    """
    if not isinstance(solution, Solution | PartialSolution):
        raise TypeError(
            f"solution must be a jaxsns.Solution; got {type(solution).__name__}"
        )
    error = concrete("solution", solution.error).ravel().astype(float)
    status = np.asarray(solution.status).ravel()
    if not np.ndim(solution.status):
        raise ValueError("solution must be a batch, as vmap makes it; got one problem")
    seen = error[np.isfinite(error) & (error > 0)]
    low, high = (seen.min(), seen.max()) if seen.size else (1e-16, 1.0)
    if tolerance is not None:
        low, high = min(low, tolerance), max(high, tolerance)
    low, high = low / 3, high * 3
    shown = np.where(np.isfinite(error), np.maximum(error, low), high)
    ax = axes(ax)
    for end in Status:
        mine = np.flatnonzero(status == end)
        if mine.size:
            label = f"{end.name}: {mine.size} of {status.size}"
            ax.semilogy(mine, shown[mine], ".", color=COLOURS[end], label=label)
    if tolerance is not None:
        ax.axhline(tolerance, color="0.5", linestyle="--", label="tolerance")
    ax.set(
        xlabel="batch element", ylabel="relative L1 error of both marginals",
        ylim=(low / 1.5, high * 1.5),
    )  # fmt: skip
    ax.legend()
    return ax
