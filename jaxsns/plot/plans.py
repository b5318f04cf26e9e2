"""Plans as images, as heat maps of groups, and as lines between points."""

from typing import Any

import numpy as np

from jaxsns.geometry import PointCloud
from jaxsns.partial import PartialSolution
from jaxsns.plot.axes import as_plan, axes, concrete, matplotlib_
from jaxsns.plot.reduced import barycentric_order, group_masses, max_pooled
from jaxsns.solution import Solution

FULL = 500  # rows or columns, above which a plan is pooled: more than pixels [D68]
BRIGHTEST = 0.99  # quantile of pooled entries that has the last colour [D68]
FULL_LINES = 500  # lines, above which they become thinner [D68]
FULL_POINTS = 200  # points, above which their marks become smaller [D68]


def plan(
    subject: Any,
    *,
    order: str | None = None,
    groups_x: Any = None,
    groups_y: Any = None,
    ax: Any = None,
    colorbar: bool = True,
    **style: Any,
) -> Any:
    """Draw a plan as an image, row 0 on top, or its mass between groups.

    More than 500 rows or columns are pooled: a pixel shows the largest entry under it,
    and the brightest per cent of the pixels have one colour.

    Args:
      subject: a `Solution` or `PartialSolution` of one problem, or an array [n, m].
      order: "barycentric" sorts rows and columns so that partners stand at the same
        height: each atom is placed at the barycentre of its partners, again and again
        (reciprocal averaging, Hill 1973). None: as they are.
      groups_x: [n] names or numbers of groups of the rows. With groups_y the picture is
        a heat map of groups, with per cent of the mass of each row's group.
      groups_y: [m] the same of the columns.
      ax: matplotlib axes, or None.
      colorbar: with a scale of the mass beside it.
      **style: for `ax.imshow`, e.g. cmap, norm.

    Returns:
      The axes.

    Raises:
      ImportError: matplotlib is missing. TypeError, ValueError: not a plan, traced; an
        unknown order; one of the groups without the other, or of a wrong shape.

    Cost: below 2 s at 5,000 x 8,000, most of it for the plan.
    """
    if order not in (None, "barycentric"):
        raise ValueError(f"order must be None or 'barycentric'; got {order!r}")
    if (groups_x is None) != (groups_y is None):
        raise ValueError("groups_x and groups_y go together; got one of them")
    if groups_x is not None:
        if order is not None:
            raise ValueError("order is of a plan without groups; got both")
        return _groups(subject, groups_x, groups_y, ax, colorbar, style)
    matrix = as_plan(subject)
    n, m = matrix.shape
    if order is not None:
        rows, columns = barycentric_order(matrix)
        matrix = matrix[np.ix_(rows, columns)]
    pooled = max_pooled(matrix, FULL)
    ax = axes(ax)
    settings = {"aspect": "auto", "interpolation": "nearest", "vmin": 0} | style
    if "norm" in style:
        del settings["vmin"]
    settings.setdefault("extent", (-0.5, m - 0.5, n - 0.5, -0.5))
    whole = pooled.shape == (n, m)
    if not whole and "norm" not in style:
        # A few large entries, of atoms at the edge, would leave all others dark.
        settings.setdefault("vmax", np.quantile(pooled, BRIGHTEST) or None)
    image = ax.imshow(pooled, **settings)
    if colorbar:
        label = "mass of a pair" if whole else "largest mass of a pair under a pixel"
        extend = "neither" if whole else "max"
        ax.figure.colorbar(image, ax=ax, label=label, extend=extend)
    place = "" if order is None else ", in the order of partners"
    ax.set(xlabel=f"column{place or ' j'}", ylabel=f"row{place or ' i'}")
    return ax


def _groups(subject: Any, groups_x: Any, groups_y: Any, ax, colorbar: bool, style):
    """Heat map of the mass between groups, with names and per cent."""
    mass, names_x, names_y = group_masses(subject, groups_x, groups_y)
    rows = mass.sum(axis=1, keepdims=True)
    share = 100 * mass / np.where(rows > 0, rows, 1)
    ax = axes(ax)
    settings = {"aspect": "auto", "cmap": "Blues", "vmin": 0, "vmax": 100} | style
    image = ax.imshow(share, **settings)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="mass of the row (%)")
    for (i, j), per_cent in np.ndenumerate(share):
        # White where it has more contrast on the default colours.
        colour = "white" if per_cent > 65 else "black"
        words = f"{per_cent:.0f}" if per_cent >= 0.5 or per_cent == 0 else "<1"
        ax.text(j, i, words, ha="center", va="center", color=colour)
    ax.set_xticks(range(len(names_y)), names_y, rotation=45, ha="right")
    ax.set_yticks(range(len(names_x)), names_x)
    ax.set(xlabel="group of the columns", ylabel="group of the rows")
    return ax


def _plane(name: str, points: Any, letter: str, size: int) -> np.ndarray:
    points = concrete(name, points)
    if points.shape != (size, 2):
        raise ValueError(
            f"lines are drawn in the plane: {name} must have shape [{letter}, 2] = "
            f"[{size}, 2]; got {points.shape} (of points in more dimensions pass two "
            "coordinates, e.g. principal components, as x= and y=)"
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

    Lines are as opaque as their mass is large, and thinner if there are many; circles
    are the x, crosses the y.

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

    Cost: below 2 s at 5,000 x 8,000, most of it for the plan.
    """
    if x is None or y is None:
        whole = subject.extended if isinstance(subject, PartialSolution) else subject
        geometry = whole.problem.geometry if isinstance(whole, Solution) else None
        if not isinstance(geometry, PointCloud):
            raise ValueError(
                "x and y must be given unless the solution is of a PointCloud"
            )
        x, y = geometry.x if x is None else x, geometry.y if y is None else y
    if isinstance(subject, Solution | PartialSolution):
        sizes = subject.f.shape[-1], subject.g.shape[-1]
    else:
        sizes = as_plan(subject).shape
    x, y = _plane("x", x, "n", sizes[0]), _plane("y", y, "m", sizes[1])
    matrix = as_plan(subject)
    ax = axes(ax)
    i, j = _largest(matrix, most, least)
    share = matrix[i, j] / matrix.max() if len(i) else np.zeros(0)
    thin = min(1.0, (FULL_LINES / max(len(i), 1)) ** 0.5)
    drawn = matplotlib_().collections.LineCollection(
        list(np.stack([x[i], y[j]], axis=1)),
        **({"color": "0.3", "linewidths": 0.8 * thin, "zorder": 1} | style),
        alpha=share,
    )
    ax.add_collection(drawn)
    for points, size, label, colour, marker in (
        (x, 14, "x (rows)", "C0", "o"),
        (y, 20, "y (columns)", "C3", "x"),
    ):
        few = min(1.0, FULL_POINTS / len(points))
        ax.scatter(
            *points.T, s=max(size * few, 1), label=label, color=colour, marker=marker,
            alpha=max(few**0.5, 0.3), linewidths=max(few, 0.4), zorder=2,
        )  # fmt: skip
    ax.set(xlabel="first coordinate", ylabel="second coordinate", aspect="equal")
    for mark in ax.legend().legend_handles:
        mark.set(sizes=[20], alpha=1, linewidths=1)
    return ax


def _largest(matrix: np.ndarray, most: int, least: float):
    """([k], [k]) rows and columns of the largest entries, the smallest of them first.

    Only what may be drawn is sorted, so that the cost is a few passes.
    """
    flat = matrix.ravel()
    chosen = np.flatnonzero(flat > max(least * flat.max(), 0))
    if chosen.size > most:
        part = np.argpartition(flat[chosen], chosen.size - most)[chosen.size - most :]
        chosen = chosen[part]
    chosen = chosen[np.argsort(flat[chosen], kind="stable")]
    return np.unravel_index(chosen, matrix.shape)
