"""What is compared: the paper's three problems and its own figures for them.

Source: Tang, Shavlovsky, Rahmanian, Tardini, Thekumparampil, Xiao, Ying,
"Accelerating Sinkhorn algorithm with sparse Newton iterations", ICLR 2024, Table 1
(n = 500 and 784, eta = 1200, to machine accuracy, on an Apple M1 Pro).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jaxsns
from experiments import problems

EPSILON = 1 / 1200  # the largest cost is 1
TOLERANCE = 1e-13
SINKHORN_LIMIT = 60_000  # sweeps
NEWTON_LIMIT = 100  # steps of SNS after its warm-up


class Figures(NamedTuple):
    """What the paper reports for a method on a problem."""

    iterations: int
    seconds: float


class Case(NamedTuple):
    """A problem, the paper's figures, and the (warm_up, kept) SNS is tried with."""

    name: str
    make: Callable[[], problems.Problem]
    sns: Figures
    sinkhorn: Figures
    settings: tuple[tuple[int, int], ...]


CASES = (
    Case(
        "assignment, n = 500",
        lambda: problems.random_assignment(500, 0),
        Figures(29, 0.34),
        Figures(56_199, 233.36),
        ((20, 8), (20, 2), (20, 4)),
    ),
    Case(
        "MNIST, squared L2",
        lambda: problems.mnist((0, 0), (1, 0), 2),
        Figures(53, 2.33),
        Figures(2_041, 18.84),
        ((20, 2), (20, 4), (20, 8), (20, 15)),
    ),
    Case(
        "MNIST, L1",
        lambda: problems.mnist((0, 0), (1, 0), 1),
        Figures(777, 12.22),
        Figures(5_748, 45.75),
        ((20, 15), (200, 15), (200, 30), (700, 2), (700, 8), (700, 15), (700, 30)),
    ),
)


def sns_options(warm_up: int, kept: int) -> tuple[jaxsns.SNSOptions, int]:
    """Published SNS and its limit of steps."""
    options = jaxsns.SNSOptions(tolerance=TOLERANCE, warm_up=warm_up, kept=kept)
    return options, warm_up + NEWTON_LIMIT


def other_methods() -> dict[str, tuple[Any, int | None]]:
    """Name, method and step limit of what SNS is compared with."""
    plain = jaxsns.SinkhornOptions(overrelaxation=False)
    return {
        "Sinkhorn, plain": (plain, SINKHORN_LIMIT),
        "Sinkhorn, over-relaxed": ("sinkhorn", SINKHORN_LIMIT),
        "auto": ("auto", None),
    }
