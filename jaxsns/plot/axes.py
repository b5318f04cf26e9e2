"""What the pictures share: axes, arrays on the host, what may be drawn."""

from typing import Any

import numpy as np
from jax.core import Tracer

from jaxsns.partial import PartialSolution
from jaxsns.quadratic import QuadraticSolution
from jaxsns.solution import Solution


def matplotlib_():
    """Import matplotlib, or say what to install."""
    try:
        import matplotlib.collections
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError(
            "jaxsns.plot needs matplotlib: pip install 'jaxsns[plot]'"
        ) from error
    return matplotlib


def axes(ax: Any) -> Any:
    """Return the given axes, or new ones."""
    if ax is None:
        return matplotlib_().pyplot.subplots(layout="constrained")[1]
    return ax


def concrete(name: str, value: Any) -> np.ndarray:
    """Array on the host; TypeError if it is traced."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name} is traced; jaxsns.plot works outside jit only")
    return np.asarray(value)


def one_problem(solution: Any) -> Any:
    """Refuse what is not a solution of a single problem, with values."""
    if not isinstance(solution, Solution | PartialSolution | QuadraticSolution):
        raise TypeError(
            "solution must be a jaxsns.Solution or PartialSolution; "
            f"got {type(solution).__name__}"
        )
    lanes = concrete("solution", solution.f).shape[:-1]
    if lanes:
        raise ValueError(
            f"solution must be of one problem; got a batch {lanes} (pick an element "
            "with jax.tree.map(lambda x: x[i], solution), or use jaxsns.plot.batch)"
        )
    return solution


def as_plan(subject: Any) -> np.ndarray:
    """[n, m] plan of a solution, or the array itself."""
    if isinstance(subject, Solution | PartialSolution | QuadraticSolution):
        return np.asarray(one_problem(subject).plan())
    plan = concrete("plan", subject)
    if plan.ndim != 2 or 0 in plan.shape:
        raise ValueError(f"plan must have shape [n, m], not empty; got {plan.shape}")
    return plan
