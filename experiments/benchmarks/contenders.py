"""Who takes part, with which settings, and where.

Peers are given the variants that their documentation offers; the best of a library's
variants is what the figures compare with.
"""

from typing import Any, NamedTuple

import jaxsns
from experiments.benchmarks.cases import EPSILONS, Cell


class Contender(NamedTuple):
    """A solver with its fixed settings."""

    name: str
    library: str
    where: str  # "here", or the child: "ott" or "cpu"
    function: str = ""
    options: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    start: float = 1.0  # first threshold, in tolerances
    float32: bool = False
    small: float | None = None  # runs at most at this epsilon
    large: bool = True  # runs at n > 2000


OURS = (
    Contender("auto", "jaxsns", "here", float32=True),
    Contender("newton", "jaxsns", "here", float32=True),
    Contender("sinkhorn", "jaxsns", "here", float32=True),
    Contender("sinkhorn, plain", "jaxsns", "here", float32=True),
)


def method(name: str) -> Any:
    """What `jaxsns.solve` takes as the method."""
    if name == "sinkhorn, plain":
        return jaxsns.SinkhornOptions(overrelaxation=False)
    return name


def _ott(name: str, lse: bool, large: bool = True, **options: Any) -> Contender:
    # A sweep ends with exact rows, its threshold is the L1 error of the columns:
    # just below the tolerance, for rounding.
    return Contender(
        f"OTT-JAX {name}",
        "OTT-JAX",
        "ott",
        "solve",
        {"lse": lse, **options},
        start=0.95,
        float32=True,
        small=EPSILONS["0.01"] if "schedule" in options else None,
        large=large,
    )


SCHEDULE = 0.9  # factor a sweep, from 0.1 of the largest cost (set in `race`)
OTT = (
    _ott("plain", True),
    _ott("plain, kernel", False),
    _ott("momentum 1.5, kernel", False, momentum=[0, 1.5]),
    _ott("momentum 1.8", True, large=False, momentum=[0, 1.8]),
    _ott("momentum 1.8, kernel", False, momentum=[0, 1.8]),
    _ott("adaptive momentum, kernel", False, momentum=[100, 1.0]),
    _ott("Anderson", True, large=False, anderson=[2, 1]),
    _ott("Anderson, kernel", False, anderson=[2, 1]),
    _ott("plain, schedule", True, large=False, schedule=SCHEDULE),
    _ott("momentum 1.8, schedule", True, momentum=[0, 1.8], schedule=SCHEDULE),
    _ott("Anderson, schedule", True, False, anderson=[2, 1], schedule=SCHEDULE),
)


def _regot(name: str, solver: str, large: bool = True) -> Contender:
    name = f"RegOT {name}"
    return Contender(name, "RegOT", "cpu", "regot", {"solver": solver}, large=large)


REGOT = (
    _regot("SSNS", "ssns"),
    _regot("SPLR", "splr"),
    _regot("L-BFGS", "lbfgs_dual"),
    _regot("BCD", "bcd", large=False),
)
POT = (Contender("POT sinkhorn_log", "POT", "cpu", "pot", large=False),)
PEERS = OTT + REGOT + POT
ZEROS_REFUSED = ("RegOT",)  # its masses must be positive


def of_cell(cell: Cell, epsilon: float, n: int, zeros: bool) -> list[Contender]:
    """Who runs in a cell; n: the larger side; zeros: some masses are zero."""
    out = []
    for x in OURS + (PEERS if cell.peers else ()):
        ours = x.library == "jaxsns"
        if cell.only:
            if x.name in cell.only:
                out.append(x)
        elif (
            (x.float32 or cell.dtype == "float64")
            and (x.small is None or epsilon <= x.small)
            and (x.large or n <= 2000 or n == 3000)
            and (ours or not zeros or x.library not in ZEROS_REFUSED)
        ):
            out.append(x)
    return out
