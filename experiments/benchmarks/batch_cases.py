"""The batched cases: problems, contenders, the settings tried of OTT, and the bars."""

import dataclasses
import functools
from collections.abc import Callable

from experiments.benchmarks import batch_problems as problems
from experiments.benchmarks.batch_peers import Setting
from experiments.benchmarks.batch_problems import Batch

ALL: tuple[Setting, ...] = (
    {},
    {"lse": False},
    {"inner": 5},
    {"inner": 5, "lse": False},
    {"momentum": [0, 1.5]},
    {"momentum": [0, 1.8]},
    {"momentum": [100, 1.0]},
    {"lse": False, "momentum": [0, 1.5]},
    {"lse": False, "momentum": [100, 1.0]},
    {"anderson": 5},
    {"momentum": [100, 1.0], "schedule": [50, 0.9]},
)
TINY: tuple[Setting, ...] = (
    {"inner": 5},
    {"inner": 5, "lse": False},
    {"inner": 10},
    {"inner": 10, "lse": False},
    {"fixed": 1},
    {"fixed": 1, "lse": False},
)
GRADIENT: tuple[Setting, ...] = (
    {"inner": 10, "gradient": "implicit"},
    {"inner": 10, "lse": False, "gradient": "implicit"},
    {"fixed": 1, "gradient": "implicit"},
    {"fixed": 1, "gradient": "unrolled"},
    {"fixed": 1, "lse": False, "gradient": "unrolled"},
)
SCENIC: tuple[Setting, ...] = (
    {"most": 1000, "momentum": [100, 1.0], "schedule": [50, 0.9]},
)


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a ratio of times is to be: time of `top` over time of `bottom`."""

    top: str
    bottom: str
    limit: float
    at_least: bool = True  # else at most

    def met(self, ratio: float) -> bool:
        """Whether a measured ratio satisfies it."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit

    def describe(self) -> str:
        """Say the bar in a few words."""
        sign = ">=" if self.at_least else "<="
        return f"{self.top} / {self.bottom} {sign} {self.limit:g}"


@dataclasses.dataclass(frozen=True)
class Case:
    """One row group of the table."""

    name: str
    make: Callable[..., Batch]  # make(seed=...)
    dtype: str
    tolerance: float
    contenders: tuple[str, ...]
    settings: tuple[Setting, ...] = ALL
    bars: tuple[Bar, ...] = ()
    gradient: bool = False


def _ott(limit: float) -> tuple[Bar, ...]:
    return (Bar("OTT vmap", "jaxsns vmap", limit),)


def _mixed() -> list[Case]:
    make = functools.partial(problems.mixed_epsilon, 16, 128)
    bars = (Bar("jaxsns vmap", "jaxsns loop", 0.6, at_least=False),)
    who = ("jaxsns vmap", "jaxsns loop", "OTT vmap", "OTT loop")
    name = "1 lanes with epsilon spread 20x, 16 x (128x128)"
    return [
        Case(name, make, dtype, tolerance, who, bars=bars)
        for dtype, tolerance in (("float32", 1e-3), ("float64", 1e-6))
    ]


def _shared() -> list[Case]:
    bars = (Bar("jaxsns vmap", "products", 2, at_least=False),)
    who = ("jaxsns vmap", "products", "OTT vmap")
    return [
        Case(
            f"2 one cost, 64 pairs of masses, 128x128, eps {share} mean",
            functools.partial(problems.shared_cost, 64, 128, share),
            "float32",
            1e-3,
            who,
            bars=bars,
        )
        for share in (0.05, 0.5)
    ]


def _tiny() -> list[Case]:
    who = ("jaxsns vmap", "OTT vmap")
    out = []
    for lanes, n in ((100_000, 4), (10_000, 8), (10_000, 16), (1_000, 64)):
        make = functools.partial(problems.hyper_connections, lanes, n)
        name = f"3 hyper-connections, {lanes} x ({n}x{n})"
        out += [
            Case(name, make, "float32", 1e-6, who, TINY, _ott(5)),
            Case(
                f"{name}, with gradient", make, "float32", 1e-6, who, GRADIENT,
                _ott(5), gradient=True,
            ),
        ]  # fmt: skip
    return out


def _points() -> list[Case]:
    out = []
    for share, low, high in ((0.05, 3, 10), (0.005, 10, 30)):
        make = functools.partial(problems.gaussian, 64, 128, 8, share)
        name = f"4 points d=8, 64 x (128x128), eps {share} mean"
        who = ("jaxsns vmap", "jaxsns loop", "OTT vmap")
        out += [
            Case(name, make, "float32", 1e-3, who, bars=_ott(low)),
            Case(name, make, "float64", 1e-6, who, bars=_ott(high)),
        ]
    for share in (0.05, 0.005):
        make = functools.partial(problems.gaussian, 64, 256, 8, share)
        name = f"4 points d=8, 64 x (256x256), eps {share} mean"
        who = ("jaxsns vmap", "jaxsns loop")
        out.append(Case(name, make, "float32", 1e-3, who))
    return out


def _detection() -> list[Case]:
    return [
        Case(
            f"5 DETR matching, {lanes} x (100x100)",
            functools.partial(problems.detection, lanes, 100),
            "float32",
            1e-2,
            ("jaxsns vmap", "OTT vmap"),
            SCENIC,
        )
        for lanes in (16, 64, 384)
    ]


def all_cases() -> list[Case]:
    """Every batched case, in the order of the table."""
    return [*_mixed(), *_shared(), *_tiny(), *_points(), *_detection()]
