"""One solve as one record: what came out, what it cost, and whether it is a miss."""

from typing import Any

import jax.numpy as jnp

import jaxsns
from experiments import record
from experiments.problems import Problem

HEADERS = (
    "problem",
    "method",
    "status",
    "true error",
    "passes",
    "sweeps",
    "Newton steps",
    "CG steps",
    "time / ms",
    "time / passes",
)


def measure(
    problem: Problem,
    epsilon: float,
    tolerance: float,
    method: Any,
    max_steps: int | None = None,
    repeats: int = 7,
    budget: float = 10.0,
) -> dict[str, Any]:
    """Solve several times; the error is the harness's, from the potentials.

    Args:
      problem: cost [n, m], a [n] and b [m].
      epsilon: regularisation, in units of cost.
      tolerance: L1 error of both marginals that is asked for.
      method: as `jaxsns.solve` takes it.
      max_steps: limit of steps; None: the method's own.
      repeats: timed solves after the first, which compiles.
      budget: seconds after which no further repeat is made.

    Returns:
      The record, as plain numbers and words. "status" begins with MISS if the true
      error is above the tolerance, whatever the solver says.
    """
    cost, a, b = (jnp.asarray(x) for x in problem)

    def solve() -> jaxsns.Solution:
        return jaxsns.solve(
            cost,
            a,
            b,
            epsilon=epsilon,
            tolerance=tolerance,
            method=method,
            max_steps=max_steps,
        )

    seconds, first, solution = record.timed(solve, repeats=repeats, budget=budget)
    error = record.true_error(*problem, solution.f, solution.g, epsilon)
    said = jaxsns.Status(int(solution.status)).name
    met = error <= tolerance and bool(solution.converged)
    return {
        "status": said if met else f"MISS ({said})",
        "met": met,
        "error": error,
        "error_reported": float(solution.error),
        **{name: int(count) for name, count in solution.counts._asdict().items()},
        "seconds": seconds,
        "first_seconds": first,
        "f": solution.f,
        "g": solution.g,
    }


def row(problem: str, method: str, result: dict[str, Any], one_pass: float) -> list:
    """Cells of a table with `HEADERS`; one_pass: seconds of an exponential pass."""
    return [
        problem,
        method,
        result["status"],
        result["error"],
        result["passes"],
        result["sweeps"],
        result["newton_steps"],
        result["linear_steps"],
        1e3 * result["seconds"],
        result["seconds"] / one_pass,
    ]
