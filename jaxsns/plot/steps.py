"""Errors against steps: of a recorded solve, or numbers that somebody collected."""

from typing import Any

import numpy as np

from jaxsns.losses.divergence import Divergence
from jaxsns.plot.axes import axes, concrete
from jaxsns.recording.history import History, StepKind
from jaxsns.solution import Solution

AGAINST = {
    "step": "step",
    "passes": "passes (exponentials of the whole matrix)",
    "products": "products of the linear solver",
}
# Of a divergence: aa and bb may coincide, and both are seen then.
DASHES = {"ab": "-", "aa": "--", "bb": ":"}


def convergence(
    errors: Any,
    *,
    steps: Any = None,
    against: str = "step",
    tolerance: float | None = None,
    ax: Any = None,
    **style: Any,
) -> Any:
    """Draw marginal errors against steps, on a logarithmic scale.

    Args:
      errors: a `Solution` or `Divergence` of one problem solved with history=True, a
        `History`, or [k] relative L1 errors of both marginals. Zeros and what is not
        finite are left out.
      steps: [k] at which an array was measured; None: 1 to k.
      against: "step", "passes" or "products", of a history.
      tolerance: drawn as a line if given.
      ax: matplotlib axes, or None.
      **style: for `ax.semilogy`, e.g. label.

    Returns:
      The axes. Of a history Newton steps are triangles and sweeps dots. At a vertical
      line epsilon falls on the path, and the error is that at the new epsilon. The
      square is the error of the solution, found by a pass over the costs. A divergence
      has a line for each of its three solves.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: traced; wrong shapes;
        a solution without a history, or with lanes.
    """
    if isinstance(errors, Solution | Divergence):
        if errors.history is None:
            raise ValueError(
                f"the {type(errors).__name__} has no history; solve with history=True "
                "for one"
            )
        errors = errors.history
    if isinstance(errors, History | dict):
        if against not in AGAINST or steps is not None:
            raise ValueError(
                f"a history has its own steps, and against must be one of "
                f"{', '.join(map(repr, AGAINST))}; got {against!r}, steps={steps!r}"
            )
        terms = errors if isinstance(errors, dict) else {None: errors}
        rows = {name: history.rows() for name, history in terms.items()}
        ax = axes(ax)
        for name, row in rows.items():
            named = {} if name is None else {"label": name, "linestyle": DASHES[name]}
            _draw_history(ax, row, against, named | style, not ax.lines)
        label = AGAINST[against]
    else:
        errors, steps = _measured(errors, steps)
        ax = axes(ax)
        known = np.isfinite(errors) & (errors > 0)
        ax.semilogy(steps[known], errors[known], **({"marker": "."} | style))
        label = "iteration"
    if tolerance is not None:
        ax.axhline(tolerance, color="0.5", linestyle="--", label="tolerance")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=label, ylabel="relative L1 error of both marginals")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def _measured(errors: Any, steps: Any) -> tuple[np.ndarray, np.ndarray]:
    errors = concrete("errors", errors)
    steps = np.arange(1, errors.size + 1) if steps is None else concrete("steps", steps)
    if errors.ndim != 1 or steps.shape != errors.shape:
        raise ValueError(
            "errors and steps must have one shape [k]; got "
            f"{errors.shape} and {steps.shape}"
        )
    return errors, steps


def _draw_history(
    ax: Any, rows: dict[str, np.ndarray], against: str, style: dict, labelled: bool
) -> None:
    """Draw one line with a marker that says what each step was, and the last check."""
    steps, errors, kinds = rows[against], rows["error"], rows["kind"]
    known = np.isfinite(errors) & (errors > 0)
    checked = kinds == StepKind.CHECK
    path = known & ~checked
    line = ax.semilogy(steps[path], errors[path], **({"linewidth": 0.8} | style))[0]
    newton = path & (kinds != StepKind.SWEEP)
    for mine, marker, label in (
        (path & ~newton, ".", "sweep"),
        (newton, "^", "Newton step"),
        (known & checked, "s", "error of the solution"),
    ):
        if mine.any():
            colour = line.get_color()
            label = label if labelled else None
            ax.semilogy(steps[mine], errors[mine], marker, color=colour, label=label)
    falls = np.flatnonzero(np.diff(rows["epsilon"]) < 0)
    for number, k in enumerate(falls):
        between = (steps[k] + steps[k + 1]) / 2
        label = "epsilon falls" if labelled and not number else None
        ax.axvline(between, color="0.85", zorder=0, label=label)
