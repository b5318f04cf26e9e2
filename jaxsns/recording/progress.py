"""A bar on the terminal that shows how a solve goes: the listener of progress=True.

The bar measures the logarithm of the error, from that of the first step down to the
tolerance. On a terminal it is redrawn in place, on 79 columns; elsewhere a line goes to
standard error at most once in two seconds. It runs on the host, called back from inside
the compiled loop.
"""

import math
import sys
import time
from math import isnan
from typing import Any

import numpy as np

from jaxsns.recording import summary
from jaxsns.recording.history import Step, StepKind
from jaxsns.recording.summary import COLUMNS
from jaxsns.status import Status

PAUSE = 2.0  # seconds between two lines where nothing can be redrawn [D37]
APART = 2.0  # ratio from which the error of the last step is told as well [D37]


def describe_step(step: Step, before: float | None = None) -> str:
    """Say in one line where a solve stands, or how it ended.

    before: error of the last step on the stabilised kernel. At the precision of the
      dtype that of the result is larger, and then both are told.
    """
    head = "" if step.lanes == 1 else f"problem {step.lane + 1} of {step.lanes}, "
    if step.status != Status.RUNNING:
        missed = step.error > step.tolerance
        both = missed and before is not None and 0 < APART * before < step.error
        kernel = f"; {before:.1e} unchecked" if both else ""
        return (
            f"{head}{step.status.name} after {step.step} steps, "
            f"error {step.error:.1e} (to {step.tolerance:.1e}{kernel})"
        )
    kind = "sweep" if step.kind == StepKind.SWEEP else f"Newton ({step.kind.name})"
    return (
        f"{head}step {step.step}, epsilon {step.epsilon:.2e}, "
        f"error {step.error:.1e} (to {step.tolerance:.1e}), {kind}"
    )


def describe_ends(steps: list[Step]) -> str:
    """Say in one line how the problems of a batch ended."""
    worst = max(steps, key=lambda step: math.inf if isnan(step.error) else step.error)
    found = summary.ends(np.asarray([step.status for step in steps]))
    return (
        f"{len(steps)} problems, {found}, worst error {worst.error:.1e} "
        f"(to {worst.tolerance:.1e})"
    )


def share_done(first: float, error: float, tolerance: float) -> float:
    """How far an error has fallen from the first one to the tolerance, in [0, 1]."""
    if not (0 < tolerance < first and error > 0):
        return float(error <= tolerance)
    return min(max(math.log(first / error) / math.log(first / tolerance), 0.0), 1.0)


def draw(share: float, step: Step) -> str:
    """Bar on 79 columns with the numbers of a step."""
    lane = "" if step.lanes == 1 else f"problem {step.lane + 1}/{step.lanes}, "
    words = f"{lane}step {step.step}, error {step.error:.1e} (to {step.tolerance:.1e})"
    width = max(COLUMNS - len("jaxsns 100% [] ") - len(words), 4)
    full = round(share * width)
    bar = "#" * full + "." * (width - full)
    return f"jaxsns {share:4.0%} [{bar}] {words}"[:COLUMNS].ljust(COLUMNS)


class ProgressLine:
    """Shows one solve, or one batch of them, at a time."""

    def __init__(self):
        """Show nothing yet."""
        self._last: dict[int, Step] = {}  # step seen last of each lane
        self._first: dict[int, float] = {}  # error of the first step
        self._share: dict[int, float] = {}
        self._ended: dict[int, Step] = {}  # how each problem ended
        self._shown = -math.inf

    def __call__(self, step: Step) -> None:
        """Show a step; after the last lane's end the line is left as it is."""
        lane = step.lane
        before = self._last.get(lane)
        if before is not None and step.step < before.step:
            self.__init__()  # a solve that died left this behind
            before = None
        self._last[lane] = step
        first = self._first.setdefault(lane, step.error)
        share = share_done(first, step.error, step.tolerance)
        self._share[lane] = max(share, self._share.get(lane, 0.0))
        if step.status != Status.RUNNING:
            self._share[lane] = 1.0
            self._ended[lane] = step
        over = len(self._ended) >= step.lanes
        self._show(step, None if before is None else before.error, over)
        if over:
            self.__init__()

    def _show(self, step: Step, before: float | None, over: bool) -> None:
        tty = sys.stderr.isatty()
        words = f"jaxsns: {describe_step(step, before)}"
        if over and step.lanes > 1:
            words = f"jaxsns: {describe_ends(list(self._ended.values()))}"
        if tty and over:
            sys.stderr.write(f"\r{words.ljust(COLUMNS)}\n")
        elif tty:
            share = sum(self._share.values()) / step.lanes
            sys.stderr.write("\r" + draw(share, step))
        elif over or time.monotonic() - self._shown > PAUSE:
            self._shown = time.monotonic()
            sys.stderr.write(words + "\n")
        sys.stderr.flush()


# One for all, since a listener is part of the compiled program.
LINE = ProgressLine()


def listener(progress: Any) -> Any:
    """Turn the argument `progress` into a listener, or None.

    Raises:
      TypeError: neither a bool nor callable.
    """
    if isinstance(progress, bool):
        return LINE if progress else None
    if not callable(progress):
        raise TypeError(
            "progress must be True, False or a function of a Step; got "
            f"{type(progress).__name__}"
        )
    hash(progress)  # it is part of the compiled program
    return progress
