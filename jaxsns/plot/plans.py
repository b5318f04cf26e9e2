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
      subject: a solution of one problem (`Solution`, `PartialSolution` or
        `QuadraticSolution`), or an array [n, m].
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


def _draw_pairs(ax, matrix, x, y, most: int, least: float, style: dict) -> None:
    """Draw the largest entries of a plan as lines, the largest on top."""
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
    _draw_pairs(ax, matrix, x, y, most, least, style)
    ax.scatter(*x.T, s=14, label="x (rows)", color="C0", zorder=2)
    ax.scatter(*y.T, s=20, label="y (columns)", color="C3", marker="x", zorder=2)
    ax.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    ax.legend()
    return ax


def _links(name: str, links: Any, points: np.ndarray) -> np.ndarray:
    """[k, 2, 2] ends of the links of a graph, each once."""
    n = len(points)
    links = concrete(name, links)
    if links.shape != (n, n):
        raise ValueError(f"{name} must have shape [{n}, {n}]; got {links.shape}")
    i, j = np.nonzero(np.triu((links != 0) | (links.T != 0), 1))
    return np.stack([points[i], points[j]], axis=1)


def coupling(
    subject: Any,
    x: Any,
    y: Any,
    *,
    x_links: Any = None,
    y_links: Any = None,
    ax: Any = None,
    most: int = 2000,
    least: float = 0.1,
    **style: Any,
) -> Any:
    """Draw two clouds or graphs beside each other, with the largest entries of a plan.

    For spaces that share no coordinates: both are scaled to the same height, and y
    stands on the right. Lines are as opaque as their mass is large.

    Args:
      subject: as for `plan`; of `solve_quadratic` as a rule.
      x: [n, 2] places of the points or nodes of the first space.
      y: [m, 2] of the second.
      x_links: [n, n] adjacency matrix of the first graph: links where it is not zero.
      y_links: [m, m] of the second.
      ax: matplotlib axes, or None.
      most: at most so many lines.
      least: entries below this part of the largest one are left out.
      **style: for the `LineCollection` of the plan, e.g. color, linewidths.

    Returns:
      The axes, with equal scales and no ticks: places have no unit.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: as `plan`; places or
        links of a wrong shape.
    """
    matrix = as_plan(subject)
    x = _plane("x", x, "n", matrix.shape[0])
    y = _plane("y", y, "m", matrix.shape[1])
    x, y = (_unit(points) for points in (x, y))
    y = y + [x[:, 0].max() - y[:, 0].min() + 0.5, 0]
    ax = axes(ax)
    for name, links, points in (("x_links", x_links, x), ("y_links", y_links, y)):
        if links is not None:
            ends = _links(name, links, points)
            kind = matplotlib_().collections.LineCollection
            ax.add_collection(kind(list(ends), color="0.8", linewidths=1, zorder=0))
    _draw_pairs(ax, matrix, x, y, most, least, style)
    ax.scatter(*x.T, s=14, label="x (rows)", color="C0", zorder=2)
    ax.scatter(*y.T, s=14, label="y (columns)", color="C3", zorder=2)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2)
    return ax


def _unit(points: np.ndarray) -> np.ndarray:
    """Points from 0 to 1 along the second axis, as wide as they are."""
    low, high = points.min(axis=0), points.max(axis=0)
    height = high[1] - low[1]
    return (points - low) / (height if height > 0 else max(high[0] - low[0], 1))
