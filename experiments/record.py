"""How experiments measure and write down: time, the true error, machine, tables.

Set `OPENBLAS_NUM_THREADS=1` before NumPy or JAX are imported: the BLAS behind
`scipy.linalg`, which JAX calls for a Cholesky factorisation on the CPU, otherwise
fights XLA for the cores. `environment` writes down what was set.
"""

import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np


def timed(
    function: Callable, *args: Any, repeats: int = 7, budget: float = 10.0
) -> tuple[float, float, Any]:
    """Median seconds, seconds of the first call (it compiles), and the result.

    The first call is the warm-up. Repeats end early, but not before the first, when
    they have taken `budget` seconds: slow runs need no fine clock.
    """
    times: list[float] = []
    first = 0.0
    for number in range(repeats + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(function(*args))
        seconds = time.perf_counter() - start
        if number == 0:
            first = seconds
        else:
            times.append(seconds)
            if sum(times) > budget:
                break
    return statistics.median(times), first, result


@jax.jit
def _pass(f: jax.Array, g: jax.Array, cost: jax.Array, epsilon: jax.Array):
    plan = jnp.exp((f[:, None] + g - cost) / epsilon)
    return plan, jnp.sum(plan, axis=1), jnp.sum(plan, axis=0)


def pass_time(cost: Any, epsilon: float, repeats: int = 51) -> float:
    """Median seconds of one exponential pass with row and column sums.

    The unit in which other machines can read our times: same matrix, same dtype.
    The potentials are row minima of the cost, so that rows do not underflow.
    """
    cost = jnp.asarray(cost)
    f, g = jnp.min(cost, axis=1), jnp.zeros(cost.shape[1], cost.dtype)
    epsilon = jnp.asarray(epsilon, cost.dtype)
    median, _, _ = timed(_pass, f, g, cost, epsilon, repeats=repeats)
    return median


def true_error(cost: Any, a: Any, b: Any, f: Any, g: Any, epsilon: float) -> float:
    """L1 error of both marginals over the mass, from the potentials in float64.

    Computed here with NumPy, so that a solver is not its own judge.
    """
    cost, a, b, f, g = (np.asarray(x, np.float64) for x in (cost, a, b, f, g))
    plan = np.exp((f[:, None] + g[None, :] - cost) / epsilon)
    missing = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    return float(missing / a.sum())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """When, with which versions and on what the numbers were made."""
    return {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "device": str(jax.devices()[0].device_kind),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "not set"),
    }


def describe_environment(facts: dict[str, Any]) -> str:
    """Say in one line what `environment` found."""
    return (
        f"{facts['date']}, Python {facts['python']}, jax {facts['jax']}, jaxlib "
        f"{facts['jaxlib']}, device {facts['device']} ({facts['processor']}, "
        f"{facts['cpu_count']} cores), OPENBLAS_NUM_THREADS="
        f"{facts['OPENBLAS_NUM_THREADS']}"
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        small = value != 0 and abs(value) < 1e-2
        return f"{value:.1e}" if small else f"{value:,.{0 if value >= 100 else 2}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """Markdown table, aligned so that it reads well in a terminal too."""
    cells = [list(headers)] + [[_cell(x) for x in row] for row in rows]
    width = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(headers))
    ]

    def line(row: Sequence[str]) -> str:
        aligned = [
            x.rjust(w) if right else x.ljust(w)
            for x, w, right in zip(row, width, numeric, strict=True)
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * (w - 1) + ":" if right else "-" * w
        for w, right in zip(width, numeric, strict=True)
    ]
    return "\n".join([line(cells[0]), line(rule), *[line(row) for row in cells[1:]]])


def _compact(value: Any) -> str:
    return json.dumps(value, default=float)


def _has_tables(value: Any, single: bool) -> bool:
    """Whether there are lists of dictionaries inside, or with `single` dictionaries."""
    if isinstance(value, dict):
        inside = list(value.values())
        found = single and any(isinstance(x, dict) for x in inside)
    elif isinstance(value, list | tuple):
        inside = list(value)
        found = any(isinstance(x, dict) for x in inside)
    else:
        return False
    return found or any(_has_tables(x, single) for x in inside)


def _lines(value: Any, indent: str = "", row: bool = False) -> str:
    """JSON with a row of a table on one line, however long it is."""
    if not _has_tables(value, single=not row):
        return _compact(value)
    inner = indent + " "
    if isinstance(value, dict):
        rows = [f"{_compact(k)}: {_lines(x, inner)}" for k, x in value.items()]
        left, right = "{", "}"
    else:
        rows = [_lines(x, inner, row=True) for x in value]
        left, right = "[", "]"
    return f"{left}\n" + ",\n".join(inner + x for x in rows) + f"\n{indent}{right}"


def save_json(path: Path | str, content: dict[str, Any]) -> None:
    """Write a dictionary as JSON, a row of a table on each line; makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(content) + "\n")
