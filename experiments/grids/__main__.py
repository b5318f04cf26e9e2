"""Seconds of solves on images and volumes. Writes `results.json` and `README.md`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # LAPACK against XLA's threads

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import record
from experiments.grids import images

FOLDER = Path(__file__).parent
SIZE = 256
PRECISIONS = ((jnp.float32, 1e-4), (jnp.float64, 1e-8))
HEADERS = (
    "grid", "dtype", "epsilon / max C", "method", "status", "true error", "s",
    "compile, s", "sweeps", "Newton", "CG", "passes",
)  # fmt: skip

TEXT = f"""# Grids

`solve(Grid((x, x)), a, b)` on images of {SIZE} x {SIZE} pixels and volumes of 32^3,
squared distances; n = 65,536, so that a matrix of all pairs would have 4.3e9
entries. L1 error of both marginals asked for: 1e-4 in float32, 1e-8 in float64; the
true error is that of the potentials that came back, computed by NumPy in float64.
Median of warm solves; the first solve of a shape, dtype and method compiles. A
sweep and a CG step are two products with the kernel each.
Command: `python -m experiments.grids`.
"""


def cases():
    """(name, a, b, epsilons over the largest cost, methods)."""
    bumps = [images.bumps(SIZE, 2, seed) for seed in (0, 1)]
    all_three = (1e-2, 1e-3, 1e-4)
    yield "bumps", *bumps, all_three, ("auto",)
    yield "texture", *[images.texture(SIZE, s) for s in (0, 1)], all_three, ("auto",)
    yield "MNIST 0, 1", *[images.digit(SIZE, k) for k in (0, 10)], all_three, ("auto",)
    yield "bumps", *bumps, (1e-2, 1e-3), ("sinkhorn",)
    volumes = [images.bumps(32, 3, seed) for seed in (0, 1)]
    yield "bumps, 32^3", *volumes, (1e-2, 1e-3), ("auto",)


def _normalised(x, dtype):
    x = jnp.asarray(x, dtype)
    return x / jnp.sum(x)


def measure(name, a, b, dtype, tolerance, ratio, method) -> dict:
    """One solve several times; the error of its potentials is the harness's."""
    axis = np.linspace(0, 1, a.shape[0])
    grid = jaxsns.Grid((jnp.asarray(axis, dtype),) * a.ndim)
    a, b = _normalised(a, dtype), _normalised(b, dtype)
    epsilon = ratio * a.ndim

    def solve():
        return jaxsns.solve(
            grid, a, b, epsilon=epsilon, tolerance=tolerance, method=method
        )

    seconds, first, solution = record.timed(solve, repeats=3, budget=10)
    error = images.true_error(
        [axis] * a.ndim, *(np.asarray(v, float) for v in (a, b)),
        solution.f, solution.g, epsilon,
    )  # fmt: skip
    return {
        "grid": name,
        "dtype": jnp.dtype(dtype).name,
        "ratio": ratio,
        "method": method,
        "status": jaxsns.Status(int(solution.status)).name,
        "error": error,
        "seconds": seconds,
        "compile": first - seconds,
        **{k: int(v) for k, v in solution.counts._asdict().items()},
        "value": float(solution.value),
    }


def gradients() -> list[list]:
    """Time of derivatives in the masses and coordinates, over that of a solve."""
    a, b = (_normalised(images.bumps(SIZE, 2, s), jnp.float64) for s in (0, 1))
    axis = jnp.linspace(0, 1, SIZE)

    def solve(a, x):
        s = jaxsns.solve(jaxsns.Grid((x, x)), a, b, epsilon=2e-2, tolerance=1e-8)
        return s, s.value

    losses = {
        "solve, value": lambda a, x: solve(a, x)[1],
        "value": jax.value_and_grad(lambda a, x: solve(a, x)[1], (0, 1)),
        "transport cost": jax.value_and_grad(
            lambda a, x: solve(a, x)[0].transport_cost, (0, 1)
        ),
        "sum of f squared": jax.value_and_grad(
            lambda a, x: jnp.mean(solve(a, x)[0].f ** 2), (0, 1)
        ),
    }
    out = []
    for name, function in losses.items():
        seconds, first, _ = record.timed(jax.jit(function), a, axis, repeats=3)
        out.append([name, seconds, seconds / (out[0][1] if out else seconds), first])
    return out


def main() -> None:
    """Measure, print, and write both files."""
    jax.config.update("jax_enable_x64", True)
    rows = []
    for name, a, b, ratios, methods in cases():
        for dtype, tolerance in PRECISIONS:
            for ratio in ratios:
                for method in methods:
                    rows.append(measure(name, a, b, dtype, tolerance, ratio, method))
                    print(rows[-1], flush=True)
    keys = (
        "grid", "dtype", "ratio", "method", "status", "error", "seconds", "compile",
        "sweeps", "newton_steps", "linear_steps", "passes",
    )  # fmt: skip
    for row in rows:
        # A program compiles once for a shape, dtype and method.
        row["compile"] = row["compile"] if row["compile"] > 1 else "-"
    derivatives = gradients()
    facts = record.environment()
    first = record.table([[row[k] for k in keys] for row in rows], HEADERS)
    headers = ("value and gradient of", "s", "over solve", "first call, s")
    second = record.table(derivatives, headers)
    text = (
        f"{TEXT}\n{record.describe_environment(facts)}.\n\n{first}\n\nDerivatives in a "
        "and the coordinates, bumps, float64, epsilon = 1e-2 of the largest "
        f"cost:\n\n{second}\n"
    )
    print(text)
    (FOLDER / "README.md").write_text(text)
    content = {"environment": facts, "solves": rows, "derivatives": derivatives}
    record.save_json(FOLDER / "results.json", content)


if __name__ == "__main__":
    main()
