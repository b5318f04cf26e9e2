"""One solve by any contender: ours in this process, peers in their children."""

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import problems, record
from experiments.benchmarks import contenders, peer_process
from experiments.benchmarks.contenders import Contender
from experiments.benchmarks.peer_process import (
    Arrays,
    PeerError,
    PeerProcess,
    PeerTimeout,
)

PEERS_FOLDER = Path(".peers")  # of the root of the project; git ignores it
MODULES = {
    "ott": "experiments.benchmarks.ott_worker",
    "cpu": "experiments.benchmarks.cpu_worker",
}
COMPILING = 120.0  # seconds allowed beside the solve, where a child compiles
LOADING = 2.0  # seconds allowed for arrays to travel
STEPS = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
PILOT = 20  # sweeps that tell how long one takes


class Run(NamedTuple):
    """What one solve gave."""

    seconds: float
    error: float  # harness's, relative L1 of both marginals
    steps: int  # iterations as the library counts them
    finished: bool  # not stopped by its limit of iterations
    compile_seconds: float = 0.0


def python_of(where: str, given: str | None) -> str | None:
    """Interpreter with the peers of a child, or None."""
    made = PEERS_FOLDER / where / "bin" / "python"
    if given is not None:
        return given
    if (peer_process.ROOT / made).exists():
        return str(peer_process.ROOT / made)
    known = {"ott": ("ott",), "cpu": ("regot", "ot")}[where]
    found = any(importlib.util.find_spec(x) is not None for x in known)
    return sys.executable if found else None


class Arena:
    """Keeps the children, the arrays of the present problem and what is compiled."""

    def __init__(self, pythons: dict[str, str | None], cache: Path | None = None):
        """Start the children whose interpreter is known; see `about`.

        cache: folder of their compiled programs; None: one that is kept.
        """
        cache = cache or peer_process.ROOT / PEERS_FOLDER / "cache"
        self._children: dict[str, PeerProcess] = {}
        self.about: dict[str, dict[str, Any]] = {}
        for where, python in pythons.items():
            if python is None:
                continue
            child = peer_process.start(
                python,
                MODULES[where],
                JAX_COMPILATION_CACHE_DIR=str(cache),
                JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
                XLA_PYTHON_CLIENT_PREALLOCATE="false",
            )
            try:
                _, self.about[where] = child.call("about", {}, {}, COMPILING)
                self._children[where] = child
            except PeerError as error:
                print(f"peers of {where!r} do not start: {error}", flush=True)
        self._compiled: dict[tuple, Any] = {}

    def close(self) -> None:
        """End the children."""
        for child in self._children.values():
            child.close()

    def has(self, contender: Contender) -> bool:
        """Whether the contender's library is installed."""
        if contender.where == "here":
            return True
        about = self.about.get(contender.where, {})
        return {"OTT-JAX": "ott-jax", "RegOT": "regot"}.get(
            contender.library, contender.library
        ) in about

    def load(self, problem: problems.Problem, dtype: str) -> None:
        """Make a problem the present one."""
        names = ("cost", "a", "b")
        arrays = [np.asarray(x, dtype) for x in problem]
        self._arrays: Arrays = dict(zip(names, arrays, strict=True))
        self._here = [jnp.asarray(x) for x in arrays]
        self._pilots: dict[tuple, float] = {}
        self._pass_seconds: dict[float, float] = {}

    def pass_seconds(self, epsilon: float) -> float:
        """Seconds of an exponential pass over the present cost."""
        if epsilon not in self._pass_seconds:
            cost = self._here[0]
            repeats = 51 if cost.size < 5e6 else 11
            self._pass_seconds[epsilon] = record.pass_time(cost, epsilon, repeats)
        return self._pass_seconds[epsilon]

    def solve(
        self,
        contender: Contender,
        epsilon: float,
        threshold: float,
        limit: float,
        again: bool = False,
    ) -> Run:
        """Solve, and time it; `again`: the second of two, one right after the other.

        Raises PeerTimeout over the limit, PeerError otherwise.
        """
        if contender.where == "here":
            return self._solve_here(contender.name, epsilon, threshold, limit, again)
        options = {"epsilon": epsilon, "threshold": threshold, **contender.options}
        if contender.where == "ott":
            options.update(self._ott_options(contender, epsilon, limit))
            allowed = 3 * limit + COMPILING
        else:
            options["max_iterations"] = 1_000_000
            allowed = 1.1 * limit + LOADING
        if again:
            self._call(contender, options, allowed)
        potentials, facts = self._call(contender, options, allowed)
        return Run(
            facts["seconds"],
            self._error(potentials["f"], potentials["g"], epsilon),
            facts["iterations"],
            facts["iterations"] < options["max_iterations"],
            facts.get("compile_seconds", 0.0),
        )

    def unregularised(
        self, function: str, options: dict[str, Any], limit: float
    ) -> tuple[float, float]:
        """Value and seconds of a peer for the cost without regularisation."""
        child = self._children["cpu"]
        made, facts = child.call(function, self._arrays, options, limit + LOADING)
        return float(made["value"]), facts["seconds"]

    def potentials(self, epsilon: float, tolerance: float) -> tuple[Any, float]:
        """Our solution by `auto`, and its warm seconds."""
        run = self._compile("auto")
        numbers = self._numbers(epsilon, tolerance, 1000)
        jax.block_until_ready(run(*self._here, *numbers))
        start = time.perf_counter()
        solution = jax.block_until_ready(run(*self._here, *numbers))
        return solution, time.perf_counter() - start

    def _error(self, f: Any, g: Any, epsilon: float) -> float:
        with np.errstate(all="ignore"):
            cost, a, b = (self._arrays[x] for x in ("cost", "a", "b"))
            error = record.true_error(cost, a, b, f, g, epsilon)
        return error if np.isfinite(error) else float("inf")

    def _call(self, contender: Contender, options: dict, allowed: float) -> tuple:
        child = self._children[contender.where]
        try:
            return child.call(contender.function, self._arrays, options, allowed)
        except PeerTimeout:
            child.call("about", self._arrays, {}, COMPILING)  # a fresh one, warm
            raise

    def _ott_options(self, contender: Contender, epsilon: float, limit: float) -> dict:
        """OTT cannot be interrupted: as many iterations as fit the limit."""
        options = dict(contender.options)
        if "schedule" in options:
            options["schedule"] = [max(0.1 / epsilon, 1.0), contenders.SCHEDULE]
        key = (options["lse"], "anderson" in options)
        if key not in self._pilots:
            pilot = {**options, "epsilon": epsilon, "threshold": 0.0}
            pilot["max_iterations"] = PILOT
            _, facts = self._call(contender, pilot, COMPILING)
            _, facts = self._call(contender, pilot, COMPILING)
            self._pilots[key] = facts["seconds"] / PILOT
        fit = limit / self._pilots[key]
        options["max_iterations"] = next((x for x in STEPS if x >= fit), STEPS[-1])
        return options

    def _numbers(self, epsilon: float, threshold: float, steps: int) -> tuple:
        dtype = self._here[0].dtype
        return (
            jnp.asarray(epsilon, dtype),
            jnp.asarray(threshold, dtype),
            jnp.asarray(steps, jnp.int32),
        )

    def _compile(self, name: str) -> Any:
        """Our solve, compiled ahead for the present shape; numbers are arguments."""
        key = (name, self._here[0].shape, self._here[0].dtype)
        if key not in self._compiled:

            def solve(cost, a, b, epsilon, tolerance, max_steps):
                return jaxsns.solve(
                    cost,
                    a,
                    b,
                    epsilon=epsilon,
                    tolerance=tolerance,
                    method=contenders.method(name),
                    max_steps=max_steps,
                )

            numbers = self._numbers(1.0, 1.0, 1)
            made = jax.jit(solve).lower(*self._here, *numbers).compile()
            self._compiled[key] = made
        return self._compiled[key]

    def _solve_here(
        self, name: str, epsilon: float, threshold: float, limit: float, again: bool
    ) -> Run:
        start = time.perf_counter()
        run = self._compile(name)
        compiling = time.perf_counter() - start
        steps = 1000
        if name.startswith("sinkhorn"):  # a sweep takes some third of a pass or more
            steps = int(min(max(3 * limit / self.pass_seconds(epsilon), 100), 200_000))
        numbers = self._numbers(epsilon, threshold, steps)
        if again:
            jax.block_until_ready(run(*self._here, *numbers))
        start = time.perf_counter()
        solution = jax.block_until_ready(run(*self._here, *numbers))
        seconds = time.perf_counter() - start
        status = jaxsns.Status(int(solution.status))
        counts = solution.counts
        return Run(
            seconds,
            self._error(solution.f, solution.g, epsilon),
            int(counts.sweeps) + int(counts.newton_steps),
            status != jaxsns.Status.MAX_STEPS,
            compiling,
        )
