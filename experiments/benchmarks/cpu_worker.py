"""Child that solves single problems with RegOT, POT and MDOT-TNT, whichever are there.

Potentials are returned in our convention, plan = exp((f_i + g_j - C_ij) / epsilon).
"""

import functools
import importlib
import importlib.metadata
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.benchmarks.peer_process import Arrays, serve

DISTRIBUTIONS = {
    "regot": "regot",
    "POT": "ot",
    "mdot-tnt": "mdot_tnt",
    "torch": "torch",
}

_prepared: dict[str, Any] = {}


def _prepare(arrays: Arrays, kind: str, make: Callable[[np.ndarray], Any]) -> tuple:
    """Bring (cost, a, b) into a library's own form once, outside the clock."""
    if _prepared.get("of") is not arrays:
        _prepared.clear()
        _prepared["of"] = arrays
    if kind not in _prepared:
        _prepared[kind] = tuple(make(arrays[name]) for name in ("cost", "a", "b"))
    return _prepared[kind]


def regot(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """One timed solve by `regot.sinkhorn_<solver>`, float64, with its own defaults.

    Args:
      arrays: cost [n, m], a [n] > 0, b [m] > 0.
      options: solver, epsilon, threshold (RegOT's, see `experiments/benchmarks`
        README), max_iterations.

    Returns:
      f [n] and g [m] (RegOT's dual is [f, g] without the last g, which is 0);
      seconds and iterations.
    """
    library = importlib.import_module("regot")
    solver = getattr(library, "sinkhorn_" + options["solver"])
    made = _prepare(arrays, "regot", functools.partial(np.asfortranarray, dtype=float))
    start = time.perf_counter()
    result = solver(
        *made,
        options["epsilon"],
        tol=options["threshold"],
        max_iter=options["max_iterations"],
    )
    seconds = time.perf_counter() - start
    dual = np.append(np.asarray(result.dual).ravel(), 0.0)
    n, m = arrays["cost"].shape
    facts = {"seconds": seconds, "iterations": int(result.niter)}
    return {"f": dual[:n], "g": dual[n : n + m]}, facts


def pot(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """One timed solve by `ot.bregman.sinkhorn_log`; options as for `regot`.

    Its threshold is the L2 error of the column sums, looked at every 10th iteration.
    """
    library = importlib.import_module("ot")
    cost, a, b = _prepare(arrays, "pot", np.ascontiguousarray)
    start = time.perf_counter()
    _, log = library.bregman.sinkhorn_log(
        a,
        b,
        cost,
        options["epsilon"],
        numItermax=options["max_iterations"],
        stopThr=options["threshold"],
        log=True,
        warn=False,
    )
    seconds = time.perf_counter() - start
    potentials = {
        "f": options["epsilon"] * np.asarray(log["log_u"]),
        "g": options["epsilon"] * np.asarray(log["log_v"]),
    }
    return potentials, {"seconds": seconds, "iterations": int(log["niter"]) + 1}


def emd(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Unregularised cost by `ot.emd2`, network simplex; value [] and seconds."""
    library = importlib.import_module("ot")
    cost, a, b = _prepare(arrays, "pot", np.ascontiguousarray)
    start = time.perf_counter()
    value = library.emd2(a, b, cost, numItermax=options["max_iterations"])
    seconds = time.perf_counter() - start
    return {"value": np.asarray(value, float)}, {"seconds": seconds}


def mdot(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Cost of `mdot_tnt.solve_OT`'s rounded plan at gamma_f = 1/epsilon."""
    torch = importlib.import_module("torch")
    library = importlib.import_module("mdot_tnt")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cost, a, b = _prepare(
        arrays, "mdot", lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = float(library.solve_OT(a, b, cost, gamma_f=options["gamma"]))
    seconds = time.perf_counter() - start
    return {"value": np.asarray(value)}, {"seconds": seconds, "device": device}


def about(arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Versions of what can be imported here."""
    del arrays, options
    facts = {}
    for distribution, module in DISTRIBUTIONS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        facts[distribution] = importlib.metadata.version(distribution)
    return {}, facts


if __name__ == "__main__":
    serve({"regot": regot, "pot": pot, "emd": emd, "mdot": mdot, "about": about})
