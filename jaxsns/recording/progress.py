"""A line on the terminal that shows how a solve goes: the listener of progress=True.

With tqdm, if that is installed; otherwise a line on standard error at most once in
two seconds. It runs on the host, called back from inside the compiled loop.
"""

import importlib
import importlib.util
import sys
import time
from typing import Any

from jaxsns.recording.history import Step, StepKind
from jaxsns.status import Status

PAUSE = 2.0  # seconds between two lines [D37]


def describe_step(step: Step) -> str:
    """Say in one line where a solve stands, or how it ended."""
    head = "" if step.lanes == 1 else f"problem {step.lane + 1} of {step.lanes}, "
    if step.status != Status.RUNNING:
        return (
            f"{head}{step.status.name} after {step.step} steps, "
            f"error {step.error:.1e} (to {step.tolerance:.1e})"
        )
    kind = "sweep" if step.kind == StepKind.SWEEP else f"Newton ({step.kind.name})"
    return (
        f"{head}step {step.step}, epsilon {step.epsilon:.2e}, "
        f"error {step.error:.1e} (to {step.tolerance:.1e}), {kind}"
    )


class ProgressLine:
    """Shows one solve, or one batch of them, at a time; steps of its lanes add up."""

    def __init__(self):
        """Show nothing yet."""
        self._bar: Any = None
        self._steps: dict[int, int] = {}  # last step seen of each lane
        self._ended: set[int] = set()
        self._shown = 0.0

    def __call__(self, step: Step) -> None:
        """Show a step; after the last lane's end the line is left as it is."""
        over = step.status != Status.RUNNING
        if step.step < self._steps.get(step.lane, 0):
            self._close()  # a solve that died left this behind
        new = step.step - self._steps.get(step.lane, 0)
        self._steps[step.lane] = step.step
        if over:
            self._ended.add(step.lane)
        closing = len(self._ended) >= step.lanes
        self._show(step, max(new, 0), closing)
        if closing:
            self._close()

    def _show(self, step: Step, new: int, last: bool) -> None:
        if self._bar is None and importlib.util.find_spec("tqdm") is not None:
            tqdm = importlib.import_module("tqdm.auto").tqdm
            self._bar = tqdm(desc="jaxsns", unit=" steps", file=sys.stderr)
        text = describe_step(step)
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=last)
            self._bar.update(new)
        elif last or time.monotonic() - self._shown > PAUSE:
            self._shown = time.monotonic()
            sys.stderr.write(f"jaxsns: {text}\n")

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self.__init__()


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
