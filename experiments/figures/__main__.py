"""Time of `auto` in passes, of derivatives over solves, of compilation.

One pass is the time of one jitted exponential of the whole matrix with its row and
column sums: same matrix, same dtype, same run. Writes `results.json` and
`README.md` beside this file.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # LAPACK against XLA's threads

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import problems, record

EPSILON, TOLERANCE = 1 / 1200, 1e-8
PAIRS = [((0, 0), (1, 0)), ((2, 0), (7, 0)), ((3, 0), (8, 0)), ((4, 0), (9, 0))]
FOLDER = Path(__file__).parent

Case = tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray], int | None]


def cases() -> list[Case]:
    """Problems with the most passes that the project allows itself, if it names one."""
    out: list[Case] = []
    for seed in range(3):
        name = f"random assignment n=500, seed {seed}"
        out.append((name, problems.random_assignment(500, seed), 70))
    for power, most in ((2, 70), (1, 400)):
        for first, second in PAIRS:
            name = f"MNIST W{power}, {first[0]} to {second[0]}"
            out.append((name, problems.mnist(first, second, power), most))
    for seed in range(3):
        name = f"2-D Gaussian points n=1000, seed {seed}"
        out.append((name, problems.gaussian_points(1000, 1000, 2, seed), 70))
    out.append(("clustered points n=1000", problems.clustered(1000, 0), 105))
    out.append(
        ("exponential to mixture n=1000", problems.exponential_mixture(1000), 67)
    )
    out.append(("3-D points 300 x 2000", problems.gaussian_points(300, 2000, 3, 0), 74))
    return out


def _solve(cost, a, b, method="auto"):
    return jaxsns.solve(cost, a, b, epsilon=EPSILON, tolerance=TOLERANCE, method=method)


def passes(name: str, arrays: tuple, most: int | None) -> dict:
    """Solve one case warm, and compare with the time of a pass."""
    cost, a, b = (jnp.asarray(x) for x in arrays)
    unit = record.pass_time(cost, EPSILON)
    row: dict = {"problem": name, "pass_ms": 1e3 * unit, "allowed": most}
    for method in ("auto", "sinkhorn"):
        run = jax.jit(functools.partial(_solve, method=method))
        seconds, first, s = record.timed(run, cost, a, b)
        error = record.true_error(cost, a, b, s.f, s.g, EPSILON)
        row[method] = {
            "ms": 1e3 * seconds,
            "passes": seconds / unit,
            "error": error,
            "reached": error <= TOLERANCE,
            "compile_s": first - seconds,
            "counts": [int(x) for x in s.counts],
        }
    return row


def derivatives(name: str, arrays: tuple) -> list[dict]:
    """Times of derivatives over the time of the solve that they contain."""
    cost, a, b = (jnp.asarray(x) for x in arrays)
    r = np.random.default_rng(0)
    u, w = jnp.asarray(r.normal(size=a.size)), jnp.asarray(r.normal(size=cost.shape))
    functions = {
        "solve": lambda c: _solve(c, a, b),
        "value_and_grad of the value": jax.value_and_grad(
            lambda c: _solve(c, a, b).value
        ),
        "value_and_grad of potentials": jax.value_and_grad(
            lambda c: jnp.vdot(u, _solve(c, a, b).f)
        ),
        "value_and_grad of a function of the plan": jax.value_and_grad(
            lambda c: jnp.vdot(w, _solve(c, a, b).plan())
        ),
    }
    rows, base = [], None
    for title, function in functions.items():
        seconds, first, _ = record.timed(jax.jit(function), cost, repeats=15)
        base = base or seconds
        rows.append(
            {
                "problem": name,
                "what": title,
                "ms": 1e3 * seconds,
                "ratio": seconds / base,
                "compile_s": first - seconds,
            }
        )
    return rows


def main() -> None:
    """Measure, print, and write results.json and README.md."""
    jax.config.update("jax_enable_x64", True)
    rows = []
    for number, case in enumerate(cases()):
        rows.append(passes(*case))
        print(f"{number + 1}: {case[0]}: {rows[-1]['auto']['passes']:.0f} passes")
    gradients = [
        row
        for title, arrays in (
            ("random assignment n=500", problems.random_assignment(500, 0)),
            ("MNIST W2, 0 to 1", problems.mnist((0, 0), (1, 0), 2)),
        )
        for row in derivatives(title, arrays)
    ]
    facts = record.environment()
    first = record.table(
        [
            [
                x["problem"], x["pass_ms"], x["auto"]["ms"], x["auto"]["passes"],
                x["allowed"], f"{x['auto']['error']:.1e}",
                "yes" if x["auto"]["reached"] else "MISS",
                " / ".join(str(k) for k in x["auto"]["counts"]),
                f"{x['sinkhorn']['passes']:.0f}"
                + ("" if x["sinkhorn"]["reached"] else " MISS"),
            ]
            for x in rows
        ],
        ["problem", "pass, ms", "auto, ms", "auto, passes", "bar", "true error",
         "reached", "sweeps / Newton / CG / sparse / exp. passes",
         "over-relaxed, passes"],
    )  # fmt: skip
    second = record.table(
        [
            [x["problem"], x["what"], x["ms"], x["ratio"], x["compile_s"]]
            for x in gradients
        ],
        ["problem", "what", "ms", "over solve", "compile, s"],
    )
    text = (
        "# Figures\n\nHow long `auto` takes in exponential passes at epsilon = 1/1200 "
        "of the largest cost,\nfloat64, L1 error of both marginals 1e-8, warm; what "
        "derivatives cost over a solve; how long\na first call compiles. "
        "Command: `python -m experiments.figures`.\n\n"
        f"{record.describe_environment(facts)}.\n\n{first}\n\n{second}\n"
    )
    print(text)
    (FOLDER / "README.md").write_text(text)
    record.save_json(
        FOLDER / "results.json",
        {"environment": facts, "passes": rows, "derivatives": gradients},
    )


if __name__ == "__main__":
    main()
