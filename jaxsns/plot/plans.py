"""Plans as images, and as lines between points."""

from typing import Any

import numpy as np

from jaxsns.geometry import PointCloud
from jaxsns.partial import PartialSolution
from jaxsns.plot.axes import as_plan, axes, concrete, matplotlib_
from jaxsns.solution import Solution


def plan(subject: Any, *, ax: Any = None, colorbar: bool = True, **style: Any) -> Any:
    """Draw a plan as an image, row 0 on top.

    Args:
      subject: a `Solution` or `PartialSolution` of one problem, or an array [n, m].
      ax: matplotlib axes, or None.
      colorbar: with a scale of the mass beside it.
      **style: for `ax.imshow`, e.g. cmap, norm.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: not a plan, traced.
    """
    matrix = as_plan(subject)
    ax = axes(ax)
    settings = {"aspect": "auto", "interpolation": "nearest", "vmin": 0} | style
    if "norm" in style:
        del settings["vmin"]
    image = ax.imshow(matrix, **settings)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="mass of a pair")
    ax.set(xlabel="column j", ylabel="row i")
    return ax


def _plane(name: str, points: Any, letter: str, size: int) -> np.ndarray:
    points = concrete(name, points)
    if points.shape != (size, 2):
        raise ValueError(
            f"{name} must have shape [{letter}, 2] = [{size}, 2]; got {points.shape}"
        )
    return points


def lines(
    subject: Any,
    x: Any = None,
    y: Any = None,
    *,
    ax: Any = None,
    most: int = 2000,
    least: float = 1e-3,
    **style: Any,
) -> Any:
    """Draw the largest entries of a plan as lines between points of the plane.

    Lines are as opaque as their mass is large; circles are the x, crosses the y.

    Args:
      subject: as for `plan`.
      x: [n, 2] points; None: those of the solution's `PointCloud`.
      y: [m, 2] points, likewise.
      ax: matplotlib axes, or None.
      most: at most so many lines.
      least: entries below this part of the largest one are left out.
      **style: for the `LineCollection`, e.g. color, linewidths.

    Returns:
      The axes, with equal scales.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: as `plan`; points that
        are not of the plane, or missing.
    """
    matrix = as_plan(subject)
    if x is None or y is None:
        whole = subject.extended if isinstance(subject, PartialSolution) else subject
        geometry = whole.problem.geometry if isinstance(whole, Solution) else None
        if not isinstance(geometry, PointCloud):
            raise ValueError(
                "x and y must be given unless the solution is of a PointCloud"
            )
        x, y = geometry.x if x is None else x, geometry.y if y is None else y
    x = _plane("x", x, "n", matrix.shape[0])
    y = _plane("y", y, "m", matrix.shape[1])
    ax = axes(ax)
    order = np.argsort(matrix, axis=None)[::-1][:most]
    order = order[matrix.ravel()[order] > max(least * matrix.max(), 0)][::-1]
    i, j = np.unravel_index(order, matrix.shape)
    share = matrix[i, j] / matrix.max() if len(i) else np.zeros(0)
    drawn = matplotlib_().collections.LineCollection(
        list(np.stack([x[i], y[j]], axis=1)),
        **({"color": "0.3", "linewidths": 0.8, "zorder": 1} | style),
        alpha=share,
    )
    ax.add_collection(drawn)
    ax.scatter(*x.T, s=14, label="x (rows)", color="C0", zorder=2)
    ax.scatter(*y.T, s=20, label="y (columns)", color="C3", marker="x", zorder=2)
    ax.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    ax.legend()
    return ax
