"""Contenders in turns: each is timed once a round, so that all see the same machine."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SLOW = 10.0  # seconds of one run, above which fewer rounds will do
# Seconds: shorter ones are timed right after a run that is not. What another library
# leaves behind, spinning threads and cold caches, costs up to as much again.
BRIEF = 0.25
ROUNDS, ROUNDS_IF_SLOW, ROUNDS_IF_SLOWEST = 7, 3, 1


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to solve a batch, compiled and warm.

    Attributes:
      name: as in the table.
      once: runs it and returns the seconds it took.
      results: what it found: f [lanes, n], g [lanes, m] and perhaps gradient.
      facts: compile_s and whatever else the record should say, such as settings.
    """

    name: str
    once: Callable[[], float]
    results: Callable[[], dict[str, np.ndarray]]
    facts: dict[str, Any]


def _enough(seconds: Sequence[float], rounds: int) -> bool:
    """Whether a contender has run often enough."""
    slowest = max(seconds, default=0)
    if slowest > 3 * SLOW:
        rounds = ROUNDS_IF_SLOWEST
    elif slowest > SLOW:
        rounds = ROUNDS_IF_SLOW
    return len(seconds) >= rounds


def measure(contenders: Sequence[Contender], rounds: int = ROUNDS) -> list[dict]:
    """Median seconds and number of runs of each, in the order given."""
    seconds: list[list[float]] = [[] for _ in contenders]
    turns = list(zip(contenders, seconds, strict=True))
    while not all(_enough(x, rounds) for x in seconds):
        for contender, times in turns:
            if not _enough(times, rounds):
                if times and times[-1] < BRIEF:
                    contender.once()
                times.append(contender.once())
        turns = turns[1:] + turns[:1]  # nobody always comes after the same one
    return [
        {
            "contender": contender.name,
            "seconds": statistics.median(times),
            "fastest": min(times),
            "repeats": len(times),
            **contender.facts,
        }
        for contender, times in zip(contenders, seconds, strict=True)
    ]
