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
      subject: a solution of one problem (`Solution`, `PartialSolution` or
        `QuadraticSolution`), or an array [n, m].
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


def _draw_pairs(ax, matrix, x, y, most: int, least: float, style: dict) -> None:
    """Draw the largest entries of a plan as lines, the largest on top."""
    i, j = _largest(matrix, most, least)
    share = matrix[i, j] / matrix.max() if len(i) else np.zeros(0)
    thin = min(1.0, (FULL_LINES / max(len(i), 1)) ** 0.5)
    drawn = matplotlib_().collections.LineCollection(
        list(np.stack([x[i], y[j]], axis=1)),
        **({"color": "0.3", "linewidths": 0.8 * thin, "zorder": 1} | style),
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
    _draw_pairs(ax, matrix, x, y, most, least, style)
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
