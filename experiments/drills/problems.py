"""Random problems of all scales and shapes of trouble, from a seed, in plain NumPy.

A batch has one shape and one dtype, so that it is one program; everything else
varies from lane to lane. Lane k of a batch is drawn from (seed, k) alone.
"""

from typing import NamedTuple

import numpy as np

SCALES = 12  # costs and masses are scaled by 10^-12 to 10^12
EPSILONS = -4.0, 1.0  # logarithm of epsilon over the spread of the costs
RHOS = -1.0, 3.0  # of a penalty over the largest cost
COSTS = (
    "random", "ties", "near ties", "points", "duplicates", "constant", "permutation",
    "forbidden", "infeasible", "shifted", "wide", "signed",
)  # fmt: skip
DIMENSION = 2  # of points


class Setting(NamedTuple):
    """What is known when a program is compiled."""

    shape: tuple[int, int]
    dtype: str = "float64"
    method: str = "auto"
    geometry: str = "dense"  # "shared": one cost for all; "streamed", "grid"
    penalised: bool = False

    @property
    def name(self) -> str:
        """Words for a table."""
        words = [] if self.geometry == "dense" else [self.geometry]
        words += ["penalised"] * self.penalised + [self.method]
        return ", ".join(words)


class Lanes(NamedTuple):
    """Problems of one shape and dtype, lanes on the first axis."""

    kinds: list[str]
    cost: np.ndarray  # [lanes, n, m]; float64 or longdouble where points are given
    a: np.ndarray  # [lanes, n]
    b: np.ndarray  # [lanes, m]
    epsilon: np.ndarray  # [lanes]
    rho_a: np.ndarray | None = None  # [lanes], infinite: equality
    rho_b: np.ndarray | None = None
    x: np.ndarray | None = None  # [lanes, n, d] points, or coordinates of a grid
    y: np.ndarray | None = None


def some(lanes: Lanes, indices) -> Lanes:
    """Some lanes of a batch."""
    kinds = [lanes.kinds[k] for k in indices]
    arrays = (None if v is None else v[np.asarray(indices)] for v in lanes[1:])
    return Lanes(kinds, *arrays)


def wide(dtype) -> type:
    """Return the dtype in which numbers of a dtype are judged."""
    return np.float64 if np.dtype(dtype) == np.float32 else np.longdouble


def _points(r, shape, kind):
    n, m = shape
    x, y = r.normal(size=(n, DIMENSION)), r.normal(size=(m, DIMENSION))
    if kind == "duplicates":
        x, y = x[r.integers(max(n // 3, 1), size=n)], y[r.integers(m, size=m)]
        y[: min(n, m) // 2] = x[: min(n, m) // 2]
    return x, y


def _cost(r, shape, kind, unit):
    """[n, m] costs of order one; `unit` is the roundoff of the dtype."""
    n, m = shape
    if kind in ("points", "duplicates"):
        x, y = _points(r, shape, kind)
        return ((x[:, None] - y[None]) ** 2).sum(-1)
    if kind in ("ties", "near ties"):
        cost = 1.0 + r.integers(0, 3, shape)
        return cost if kind == "ties" else cost * (1 + unit * r.integers(0, 4, shape))
    if kind == "constant":
        return np.ones(shape)
    if kind == "permutation":
        # Cheap along one permutation: the plan is nearly one, and splits into blocks.
        cost = 0.5 + 0.5 * r.random(shape)
        short = min(shape)
        cost[r.permutation(n)[:short], r.permutation(m)[:short]] = 0.0
        return cost
    if kind == "shifted":
        return r.random(shape) + r.choice([-1, 1]) * 10 ** r.uniform(0, 5)
    if kind == "wide":
        return np.exp(3 * r.normal(size=shape))
    if kind == "signed":
        return r.normal(size=shape)
    return r.random(shape)


def _masses(r, size):
    """[size] masses: even or spread, some, most or all but one of them zero."""
    mass = np.exp(r.choice([0.0, 0.0, 1.0, 5.0]) * r.normal(size=size))
    pattern = r.choice(["none", "none", "one", "half", "all but one"])
    gone = {"none": 0, "one": 1, "half": size // 2, "all but one": size - 1}[pattern]
    mass[r.permutation(size)[: min(gone, size - 1)]] = 0
    return mass / mass.sum()


def _forbid(r, cost, a, b):
    """Forbid pairs, at most half of them, of a problem that keeps a plan."""
    n, m = cost.shape
    # The plan of the north-west corner, rows and columns in any order, is left.
    rows, columns = r.permutation(n), r.permutation(m)
    i = j = 0
    left_a, left_b = a[rows].copy(), b[columns].copy()
    kept = np.zeros((n, m), bool)
    while i < n and j < m:
        kept[rows[i], columns[j]] = True
        moved = min(left_a[i], left_b[j])
        left_a[i] -= moved
        left_b[j] -= moved
        if (left_a[i] <= left_b[j] and i < n - 1) or j == m - 1:
            i += 1
        else:
            j += 1
    # Rounding of masses must find a way as well: one row and column are all free.
    kept[rows[np.argmax(a[rows])]] = True
    kept[:, columns[np.argmax(b[columns])]] = True
    return np.where((r.random((n, m)) < 0.5) & ~kept, np.inf, cost)


def _infeasible(r, cost, a, b):
    """A row may use one column only, which is too small for it."""
    i, j = (int(r.integers(size)) for size in cost.shape)
    a, b = (_one_of(mass, k, own) for mass, k, own in ((a, i, 0.6), (b, j, 0.2)))
    kept = cost[i, j]
    cost[i] = np.inf
    cost[i, j] = kept
    return cost, a, b


def _one_of(mass, k, own):
    """Masses of which atom k has a given share, and others the rest."""
    rest = np.where(np.arange(mass.size) == k, 0, mass)
    rest = rest if rest.sum() > 0 else 1.0 - np.eye(mass.size)[k]
    rest = (1 - own) * rest / rest.sum()
    rest[k] = own
    return rest


def _spread(cost, a, b):
    real = (a > 0)[:, None] & (b > 0)[None] & np.isfinite(cost)
    some = cost[real]
    spread = some.max() - some.min()
    return spread if spread > 0 else np.abs(some).max() or 1.0


def one(setting: Setting, seed: int, number: int):
    """Draw lane `number`: (kind, cost, a, b, epsilon, rho_a, rho_b), in float64."""
    r = np.random.default_rng([seed, number])
    shape, unit = setting.shape, np.finfo(setting.dtype).eps
    kinds = COSTS if min(shape) > 1 else [k for k in COSTS if k != "infeasible"]
    if setting.penalised:
        kinds = [k for k in kinds if k != "infeasible"]
    if setting.method == "symmetric":
        kinds = [
            k for k in kinds if k not in ("permutation", "forbidden", "infeasible")
        ]
    kind = str(r.choice(kinds))
    cost = _cost(r, shape, kind, unit)
    a, b = _masses(r, shape[0]), _masses(r, shape[1])
    if setting.method == "symmetric":
        cost, b = cost + cost.T, a
    if kind == "forbidden":
        cost = _forbid(r, cost, a, b)
    if kind == "infeasible":
        cost, a, b = _infeasible(r, cost, a, b)
    # A scale is that of the largest cost.
    cost = cost / (np.abs(cost[np.isfinite(cost)]).max() or 1.0)
    spread = _spread(cost, a, b)
    if kind in ("near ties", "shifted"):
        spread = max(spread, 1e-4 if kind == "shifted" else 1.0)
    epsilon = spread * 10 ** r.uniform(*EPSILONS)
    # A penalty far below the costs leaves no mass, or more than a dtype can hold.
    rho_a, rho_b = (10 ** r.uniform(*RHOS) for _ in range(2))
    if setting.penalised:
        hard = r.integers(3)
        rho_a = np.inf if hard == 1 else rho_a
        rho_b = np.inf if hard == 2 else rho_b
        a = a * 10 ** r.uniform(-0.5, 0.5)
    scale, mass = (10.0 ** r.integers(-SCALES, SCALES + 1) for _ in range(2))
    mass = mass if r.random() < 0.5 else 1.0
    return (
        kind, scale * cost, mass * a, mass * b,
        scale * epsilon, scale * rho_a, scale * rho_b,
    )  # fmt: skip


def _of_points(setting: Setting, seed: int, number: int):
    """Draw a lane of points [n, d] and [m, d]; a grid takes one column an axis."""
    r = np.random.default_rng([seed, number])
    kind = str(r.choice(["points", "duplicates"]))
    if setting.geometry == "grid":
        n, m = (side(size) for size in setting.shape)
        x, y = (_points(r, (max(s), max(s)), kind)[0] for s in (n, m))
    else:
        x, y = _points(r, setting.shape, kind)
    a, b = _masses(r, setting.shape[0]), _masses(r, setting.shape[1])
    root, mass = 10 ** r.uniform(-6, 6), 10.0 ** r.integers(-SCALES, SCALES + 1)
    epsilon = 4 * root**2 * 10 ** r.uniform(*EPSILONS)
    return kind, root * x, root * y, mass * a, mass * b, epsilon


def side(size: int) -> tuple[int, int]:
    """Sizes of the two axes of a grid with so many points: as square as can be."""
    first = max(k for k in range(1, int(size**0.5) + 1) if size % k == 0)
    return first, size // first


def draw(setting: Setting, seed: int, lanes: int) -> Lanes:
    """Draw a batch. The same arguments give the same numbers, bit for bit."""
    dtype = np.dtype(setting.dtype)
    if setting.geometry in ("streamed", "grid"):
        drawn = [_of_points(setting, seed, k) for k in range(lanes)]
        x, y = (np.stack([d[k] for d in drawn]).astype(dtype) for k in (1, 2))
        a, b = (np.stack([d[k] for d in drawn]).astype(dtype) for k in (3, 4))
        epsilon = np.asarray([d[5] for d in drawn]).astype(dtype)
        cost = _costs_of_points(setting, x.astype(wide(dtype)), y.astype(wide(dtype)))
        return Lanes([d[0] for d in drawn], cost, a, b, epsilon, x=x, y=y)
    drawn = [one(setting, seed, k) for k in range(lanes)]
    columns = [np.stack([d[k] for d in drawn]) for k in range(1, 7)]
    if setting.geometry == "shared":
        # Lane 0's cost, epsilon and scale for all: masses of problems without
        # forbidden pairs, which would make other lanes infeasible.
        first = next(k for k in range(lanes) if np.isfinite(columns[0][k]).all())
        columns[0][:], columns[3][:] = columns[0][first], columns[3][first]
        drawn = [(drawn[first][0],)] * lanes
    cost, a, b, epsilon, rho_a, rho_b = (c.astype(dtype) for c in columns)
    rhos = (rho_a, rho_b) if setting.penalised else (None, None)
    return Lanes([d[0] for d in drawn], cost, a, b, epsilon, *rhos)


def _costs_of_points(setting: Setting, x, y):
    """[lanes, n, m] squared distances in the dtype of the points."""
    if setting.geometry == "streamed":
        return ((x[:, :, None] - y[:, None]) ** 2).sum(-1)
    (n1, n2), (m1, m2) = side(setting.shape[0]), side(setting.shape[1])
    first = (x[:, :n1, None, 0] - y[:, None, :m1, 0]) ** 2
    second = (x[:, :n2, None, 1] - y[:, None, :m2, 1]) ** 2
    both = first[:, :, None, :, None] + second[:, None, :, None, :]
    return both.reshape(len(x), *setting.shape)
