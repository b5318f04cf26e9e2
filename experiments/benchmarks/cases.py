"""The suite: problems by name, and the epsilon, tolerance and dtype of each solve.

The largest cost of every problem is 1, so that epsilon is a fraction of it.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from experiments import problems

PAPER = "1/1200"
EPSILONS = {"0.1": 1e-1, "0.01": 1e-2, "0.001": 1e-3, PAPER: 1 / 1200}
MEANS = {"mean": 1.0, "mean/10": 0.1}  # multiples of the mean cost
HEADLINE = 1e-8  # tolerance of the headline figure


class Cell(NamedTuple):
    """One setting of a problem, and who runs at it."""

    epsilon: str  # key of EPSILONS or MEANS
    tolerance: float
    dtype: str = "float64"
    peers: bool = True
    only: tuple[str, ...] = ()  # contenders by name; () means all that fit
    limit: float | None = None  # seconds, instead of the problem's own limit


class Case(NamedTuple):
    """A problem; made when its turn comes."""

    name: str
    family: str  # same problem at other n
    n: int
    make: Callable[[], problems.Problem]
    cells: tuple[Cell, ...]


def value(epsilon: str, problem: problems.Problem) -> float:
    """Epsilon in units of cost."""
    if epsilon in MEANS:
        return MEANS[epsilon] * float(problem[0].mean())
    return EPSILONS[epsilon]


def _ours(cells: Iterable[tuple[str, float]], dtype: str = "float64") -> list[Cell]:
    return [Cell(*cell, dtype, peers=False) for cell in cells]


# With peers: both regimes of the figures, and a curve of time against error.
RACES = [
    Cell("mean", 1e-3),
    Cell("mean/10", 1e-3),
    Cell("0.1", 1e-6),
    Cell("0.01", 1e-3),
    Cell("0.01", HEADLINE),
    Cell(PAPER, 1e-3),
    Cell(PAPER, HEADLINE),
]
CURVE = [Cell(PAPER, 1e-6), Cell(PAPER, 1e-9), Cell(PAPER, 1e-12)]
# Our own methods against each other: the rest of the grid.
REST = _ours(
    (epsilon, tolerance)
    for epsilon in EPSILONS
    for tolerance in (1e-3, 1e-6, HEADLINE, 1e-9, 1e-12)
)
SINGLE = _ours(
    [
        ("mean/10", 1e-3),
        ("0.1", 1e-5),
        ("0.01", 1e-3),
        ("0.01", 1e-5),
        (PAPER, 1e-3),
        (PAPER, 2e-5),
    ],
    "float32",
)
SINGLE_RACE = [Cell("mean/10", 1e-3, "float32"), Cell("0.01", 1e-3, "float32")]
LARGE = [Cell("mean/10", 1e-3), Cell("0.01", HEADLINE), Cell(PAPER, HEADLINE)]
LARGE_REST = _ours([("0.01", 1e-3), (PAPER, 1e-3)]) + _ours(
    [("0.01", 1e-3), (PAPER, 2e-5)], "float32"
)
QUICK = [
    Cell("mean/10", 1e-3),
    Cell("0.01", HEADLINE),
    Cell(PAPER, 1e-3),
    Cell(PAPER, HEADLINE),
]
EXACT = Cell(
    PAPER,
    1e-13,
    only=(
        "auto",
        "sinkhorn",
        "sinkhorn, plain",
        "RegOT SSNS",
        "OTT-JAX plain",
    ),
    limit=60.0,
)


def _merge(*groups: Iterable[Cell]) -> tuple[Cell, ...]:
    """Loose and easy first; where a cell is there with peers, not again without."""
    seen: dict[tuple, Cell] = {}
    for cell in (cell for group in groups for cell in group):
        key = (cell.epsilon, cell.tolerance, cell.dtype)
        if key not in seen or cell.peers:
            seen[key] = cell
    order = [*MEANS, *EPSILONS]
    return tuple(
        sorted(
            seen.values(),
            key=lambda x: (x.dtype != "float64", order.index(x.epsilon), -x.tolerance),
        )
    )


def suite(seeds: list[int], quick: bool) -> list[Case]:
    """All cases; quick: a handful with n <= 1000 and the first seed."""
    if quick:
        return [
            case._replace(cells=tuple(QUICK))
            for case in _small(seeds[0])
            if case.name.startswith(QUICK_NAMES)
        ]
    cases = [case for seed in seeds for case in _small(seed)]
    return cases + _large(seeds[0])


QUICK_NAMES = ("assignment n=500", "MNIST W1,", "MNIST W2,", "points d=2 n=1000")


def _small(seed: int) -> list[Case]:
    make = problems
    first, second = make.mnist_pair(seed)
    races, full = _merge(RACES, REST, SINGLE), _merge(RACES, CURVE, REST, SINGLE)
    full = _merge(full, SINGLE_RACE)
    curve = _merge(full, [EXACT])

    def case(name: str, family: str, n: int, made: Callable, cells: tuple) -> Case:
        return Case(f"{name}, seed {seed}", family, n, made, cells)

    def digits(power: int, background: float = make.BACKGROUND) -> problems.Problem:
        return make.mnist(first, second, power, background)

    out = [
        case(
            "assignment n=500",
            "assignment",
            500,
            lambda: make.random_assignment(500, seed),
            curve,
        ),
        case("MNIST W2", "MNIST W2", 784, lambda: digits(2), full),
        case("MNIST W1", "MNIST W1", 784, lambda: digits(1), full),
        case(
            "assignment n=1000",
            "assignment",
            1000,
            lambda: make.random_assignment(1000, seed),
            _merge(LARGE, LARGE_REST),
        ),
    ]
    for d in (2, 10, 100):
        out.append(
            case(
                f"points d={d} n=1000",
                f"points d={d}",
                1000,
                lambda d=d: make.gaussian_points(1000, 1000, d, seed),
                full if d == 2 else races,
            )
        )
    out += [
        case(
            "clustered n=1000",
            "clustered",
            1000,
            lambda: make.clustered(1000, seed),
            races,
        ),
        case(
            "points d=3 300 x 3000",
            "unequal sizes",
            3000,
            lambda: make.gaussian_points(300, 3000, 3, seed),
            races,
        ),
        case(
            "wide masses n=1000",
            "wide masses",
            1000,
            lambda: make.wide_masses(1000, seed),
            races,
        ),
        case("MNIST W2 with zeros", "zeros", 784, lambda: digits(2, 0.0), races),
        case(
            "MNIST W2 zeros left out",
            "zeros left out",
            784,
            lambda: make.without_zeros(digits(2, 0.0)),
            races,
        ),
    ]
    if seed == 0:  # nothing random in it
        out.append(
            Case(
                "mixture n=1000",
                "mixture",
                1000,
                lambda: make.exponential_mixture(1000),
                races,
            )
        )
    return out


def _large(seed: int) -> list[Case]:
    make = problems
    cells = _merge(LARGE, LARGE_REST)
    out = [
        Case(
            f"assignment n={n}, seed {seed}",
            "assignment",
            n,
            lambda n=n: make.random_assignment(n, seed),
            cells,
        )
        for n in (2000, 5000)
    ]
    for d in (2, 10, 100):
        out.append(
            Case(
                f"points d={d} n=5000, seed {seed}",
                f"points d={d}",
                5000,
                lambda d=d: make.gaussian_points(5000, 5000, d, seed),
                cells,
            )
        )
    out.append(
        Case(
            "mixture n=5000",
            "mixture",
            5000,
            lambda: make.exponential_mixture(5000),
            cells,
        )
    )
    return out
