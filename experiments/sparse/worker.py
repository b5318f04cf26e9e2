"""One contender on all cases: `python -m experiments.sparse.worker NAME`, JSON lines.

It runs with the interpreter of the library's own environment. A contender gets the
loosest of four tolerances with which the judged error is below the bar, so that no one
pays for digits that nobody asked for.
"""

import json
import statistics
import sys
import time
import warnings

import numpy as np

from experiments.sparse.data import BAR, CASES, GAMMAS, judged, problem

REPEATS = 5
TOLERANCES = (1e-8, 1e-9, 1e-10, 1e-11)
LIMIT = 10.0  # seconds; a slower call is timed once and not tried with less tolerance


def ours():
    """`solve_sparse`, compiled, in float64: one program for all gammas."""
    import jax

    import jaxsns

    jax.config.update("jax_enable_x64", True)

    @jax.jit
    def solve(cost, a, b, gamma, tolerance):
        found = jaxsns.solve_sparse(cost, a, b, gamma=gamma, tolerance=tolerance)
        return found.plan()

    return lambda *data: np.asarray(solve(*data))


def pot():
    """The quadratically regularised dual by L-BFGS."""
    import ot

    def run(cost, a, b, gamma, tolerance):
        return ot.smooth.smooth_ot_dual(
            a, b, cost, gamma, reg_type="l2", stopThr=tolerance, numItermax=20_000
        )

    return run


def regot(name):
    """One of RegOT's solvers; a Newton step of its costs more than a gradient step."""
    import regot as library

    solver = getattr(library, f"qrot_{name}")
    steps = 1_000 if name.endswith("ssn") else 20_000

    def run(cost, a, b, gamma, tolerance):
        cost = np.asfortranarray(cost)
        found = solver(cost, a, b, gamma, tol=tolerance, max_iter=steps)
        return np.asarray(found.plan)

    return run


CONTENDERS = {"jaxsns": ours, "POT": pot} | {
    f"RegOT {name}": (lambda name=name: regot(name))
    for name in ("assn", "grssn", "bcd", "lbfgs_dual", "lbfgs_semi_dual")
}


def timed(run, data):
    """The plan and the seconds of one call; no plan where the peer raises."""
    start = time.perf_counter()
    try:
        plan = np.array(run(*data))
    except (RuntimeError, ValueError) as error:
        print(error, file=sys.stderr)
        plan = None
    return plan, time.perf_counter() - start


def measure(run, cost, a, b, gamma) -> dict:
    """Seconds, first call and judgement with the loosest tolerance that suffices."""
    best, begun = {"error": float("inf"), "seconds": 0.0}, None
    for tolerance in TOLERANCES:
        data = (cost, a, b, gamma, tolerance)
        plan, first = timed(run, data)
        begun = first if begun is None else begun
        if plan is not None:
            row = {"tolerance": tolerance, **judged(plan, cost, a, b, gamma)}
            row["seconds"] = first
            best = min(best, row, key=lambda row: row["error"])
        if best["error"] <= BAR or first > LIMIT:
            break
    if best["error"] <= BAR and first < LIMIT:
        again = [timed(run, data)[1] for _ in range(REPEATS)]
        best["seconds"] = statistics.median(again)
    return {"first": begun, **best}


def main(name: str) -> None:
    """Print judgement and seconds of each case."""
    warnings.simplefilter("ignore")
    run = CONTENDERS[name]()
    for case in CASES:
        for gamma in GAMMAS:
            row = {"contender": name, "case": case, "gamma": gamma}
            row |= measure(run, *problem(case), gamma)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
