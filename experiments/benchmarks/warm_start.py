"""Warm start: points that move a little each step, each solve from the last potentials.

Both clouds are standard normal; each point moves by 1 % of the standard deviation in
a random direction a step. epsilon stays what it was at the first step. OTT-JAX
starts from its own last potentials, and only for the first few steps: it is slow.
"""

import argparse
import statistics
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import record
from experiments.benchmarks.options import wanted
from experiments.benchmarks.peer_process import PeerError, PeerProcess

N, STEPS, MOVE = 1000, 50, 0.01
OTT_STEPS, OTT_LIMIT = 5, 60.0  # steps; seconds a solve
MOST_NEWTON_STEPS = 3
SETTINGS = (
    {"lse": False, "momentum": [0, 1.8]},
    {"lse": False, "momentum": [0, 1.5]},
    {"momentum": [0, 1.8]},
    {"momentum": [0, 1.5]},
)
CASES = tuple((share, tol) for share in (1 / 1200, 1e-2) for tol in (1e-6, 1e-8))


def clouds(seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both clouds [N, 2] at the start and after each step."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(2, N, 2))
    yield points[0], points[1]
    for _ in range(STEPS):
        angle = random.uniform(0, 2 * np.pi, size=(2, N))
        points = points + MOVE * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        yield points[0], points[1]


def costs(seed: int) -> list[np.ndarray]:
    """[N, N] squared distances at the start and after each step."""
    return [((x[:, None] - y[None]) ** 2).sum(-1) for x, y in clouds(seed)]


def _common(share: float, tolerance: float, seed: int) -> dict[str, Any]:
    name = f"6 warm start n={N}, eps {share:.1e} of the largest cost"
    return {"case": name, "seed": seed, "dtype": "float64", "tolerance": tolerance}


def follow(
    all_costs: list[np.ndarray], share: float, tolerance: float, seed: int
) -> list[dict[str, Any]]:
    """Solve every step warm and cold in turn; records of both and of the bar."""
    mass = np.full(N, 1 / N)
    epsilon = share * all_costs[0].max()

    @jax.jit
    def cold(cost):
        return jaxsns.solve(cost, epsilon=epsilon, tolerance=tolerance)

    @jax.jit
    def warm(cost, f, g):
        return jaxsns.solve(cost, epsilon=epsilon, tolerance=tolerance, init=(f, g))

    last = cold(jnp.asarray(all_costs[0]))
    warm(jnp.asarray(all_costs[0]), last.f, last.g)
    times: dict[str, list[float]] = {"jaxsns warm": [], "jaxsns cold": []}
    newton: dict[str, list[int]] = {k: [] for k in times}
    errors: dict[str, list[float]] = {k: [] for k in times}
    for cost in all_costs[1:]:
        moved, start = jnp.asarray(cost), (last.f, last.g)
        for name, solve, args in (
            ("jaxsns cold", cold, ()),
            ("jaxsns warm", warm, start),
        ):
            seconds, _, last = record.timed(solve, moved, *args, repeats=1)
            times[name].append(seconds)
            newton[name].append(int(last.counts.newton_steps))
            errors[name].append(
                record.true_error(cost, mass, mass, last.f, last.g, epsilon)
            )
    records: list[dict[str, Any]] = []
    for name, seconds in times.items():
        steps = newton[name]
        ratio = statistics.median(seconds) / statistics.median(times["jaxsns warm"])
        records.append(
            {
                "kind": "time", **_common(share, tolerance, seed), "contender": name,
                "seconds": statistics.median(seconds), "slowest": max(seconds),
                "repeats": len(seconds), "ratio": ratio, "error": max(errors[name]),
                "reached": max(errors[name]) <= tolerance,
                "setting": f"Newton steps: median {statistics.median(steps):g}, "
                f"most {max(steps)}",
                "newton_steps": steps,
            }
        )  # fmt: skip
    most = max(newton["jaxsns warm"])
    records.append(
        {
            "kind": "bar", **_common(share, tolerance, seed),
            "bar": f"Newton steps, worst of {STEPS} steps <= {MOST_NEWTON_STEPS}",
            "measured": float(most), "peer_reached": True,
            "met": most <= MOST_NEWTON_STEPS and records[0]["reached"],
        }
    )  # fmt: skip
    return records


def follow_ott(
    peer: PeerProcess,
    all_costs: list[np.ndarray],
    share: float,
    tolerance: float,
    seed: int,
) -> dict[str, Any] | None:
    """Let OTT follow the first steps with the setting that is fastest at the first."""
    mass = np.full(N, 1 / N)
    epsilon = np.asarray(share * all_costs[0].max())

    def solve(cost, setting, potentials):
        arrays = {"cost": cost, "a": mass, "b": mass, "epsilon": epsilon, **potentials}
        options = {"setting": setting, "threshold": tolerance / 2}
        found, facts = peer.call("follow", arrays, options, limit=OTT_LIMIT)
        error = record.true_error(
            cost, mass, mass, found["f"], found["g"], float(epsilon)
        )
        return found, facts, error

    start = {"f": np.zeros(N), "g": np.zeros(N)}
    best: tuple[float, dict, dict] | None = None
    for setting in SETTINGS:
        try:
            found, facts, error = solve(all_costs[0], setting, start)
        except PeerError as failure:
            print(f"  OTT {setting}: {str(failure)[:80]}", flush=True)
            continue
        print(f"  OTT {setting}: {facts['seconds']:.3g} s, {error:.1e}", flush=True)
        if error <= tolerance and (best is None or facts["seconds"] < best[0]):
            best = (facts["seconds"], setting, found)
    if best is None:
        return None
    _, setting, potentials = best
    seconds, errors = [], []
    try:
        for cost in all_costs[1 : 1 + OTT_STEPS]:
            potentials, facts, error = solve(cost, setting, potentials)
            seconds.append(facts["seconds"])
            errors.append(error)
    except PeerError as failure:
        print(f"  OTT {setting}: {str(failure)[:80]}", flush=True)
        return None
    return {
        "kind": "time", **_common(share, tolerance, seed), "contender": "OTT warm",
        "seconds": statistics.median(seconds), "slowest": max(seconds),
        "repeats": len(seconds), "error": max(errors),
        "reached": max(errors) <= tolerance, "setting": str(setting),
    }  # fmt: skip


def run(
    options: argparse.Namespace, ott: PeerProcess | None = None
) -> list[dict[str, Any]]:
    """Records of all cases that `options` (only, seeds) selects."""
    jax.config.update("jax_enable_x64", True)
    records: list[dict[str, Any]] = []
    for seed in options.seeds:
        all_costs = costs(seed)
        for share, tolerance in CASES:
            label = f"{_common(share, tolerance, seed)['case']}, {tolerance}"
            if not wanted(options, label):
                continue
            print(f"{label}, seed {seed}", flush=True)
            new = follow(all_costs, share, tolerance, seed)
            peer = ott and follow_ott(ott, all_costs, share, tolerance, seed)
            if peer:
                new.insert(2, {**peer, "ratio": peer["seconds"] / new[0]["seconds"]})
            records += new
    return records
