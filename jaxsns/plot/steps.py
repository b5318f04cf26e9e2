"""Errors against steps: of a recorded solve, or numbers that somebody collected."""

from typing import Any

import numpy as np

from jaxsns.plot.axes import axes, concrete
from jaxsns.recording.history import History, StepKind
from jaxsns.solution import Solution

AGAINST = {
    "step": "steps / count",
    "passes": "passes (exponentials of the whole matrix) / count",
    "products": "products of the linear solver / count",
}


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
      errors: a `Solution` of one problem solved with history=True, its `History`, or
        [k] L1 errors of both marginals over the mass; not finite ones and zeros are
        left out.
      steps: [k] at which an array was measured; None: 1 to k.
      against: "step", "passes" or "products", of a history.
      tolerance: drawn as a line if given.
      ax: matplotlib axes, or None.
      **style: for `ax.semilogy`, e.g. label.

    Returns:
      The axes. Of a history Newton steps are triangles, sweeps dots, and a vertical
      line is where epsilon falls on the path: the error is that at the new epsilon.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: traced; wrong shapes;
        a solution without a history, or with lanes.
    """
    kinds, epsilons = None, np.zeros(0)
    label = "sweeps / count"
    if isinstance(errors, Solution):
        if errors.history is None:
            raise ValueError(
                "the solution has no history; solve with history=True for one"
            )
        errors = errors.history
    if isinstance(errors, History):
        if against not in AGAINST or steps is not None:
            raise ValueError(
                f"a history has its own steps, and against must be one of "
                f"{', '.join(map(repr, AGAINST))}; got {against!r}, steps={steps!r}"
            )
        rows = errors.rows()
        steps, errors, label = rows[against], rows["error"], AGAINST[against]
        kinds, epsilons = rows["kind"], rows["epsilon"]
    errors = concrete("errors", errors)
    steps = np.arange(1, errors.size + 1) if steps is None else concrete("steps", steps)
    if errors.ndim != 1 or steps.shape != errors.shape:
        raise ValueError(
            "errors and steps must have one shape [k]; got "
            f"{errors.shape} and {steps.shape}"
        )
    ax = axes(ax)
    known = np.isfinite(errors) & (errors > 0)
    if kinds is None:
        ax.semilogy(steps[known], errors[known], **({"marker": "."} | style))
    else:
        _kinds(ax, steps, errors, known, kinds, style)
        for number, k in enumerate(np.flatnonzero(np.diff(epsilons) < 0)):
            between = (steps[k] + steps[k + 1]) / 2
            label_once = None if number else "epsilon falls"
            ax.axvline(between, color="0.85", zorder=0, label=label_once)
    if tolerance is not None:
        ax.axhline(tolerance, color="0.5", linestyle="--", label="tolerance")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel=label, ylabel="L1 error of both marginals / mass")
    if tolerance is not None or "label" in style or kinds is not None:
        ax.legend()
    return ax


def _kinds(ax: Any, steps, errors, known, kinds, style: dict[str, Any]) -> None:
    """Draw one line, with a marker that says what each step was."""
    line = ax.semilogy(steps[known], errors[known], **({"linewidth": 0.8} | style))[0]
    newton = known & (kinds != StepKind.SWEEP)
    for mine, marker, label in (
        (known & ~newton, ".", "sweep"),
        (newton, "^", "Newton step"),
    ):
        if mine.any():
            ax.semilogy(
                steps[mine], errors[mine], marker, color=line.get_color(), label=label
            )
