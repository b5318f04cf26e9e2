"""All contenders of a cell in turn, round by round; one record for each."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from experiments import problems
from experiments.benchmarks import contenders
from experiments.benchmarks.arena import Arena, Run
from experiments.benchmarks.batch_rounds import BRIEF
from experiments.benchmarks.cases import HEADLINE, PAPER, Case, Cell, value
from experiments.benchmarks.contenders import Contender
from experiments.benchmarks.peer_process import PeerError, PeerTimeout

ATTEMPTS = 6  # thresholds that a contender is given to reach the tolerance
SHORTEST = 1.0  # seconds, the least limit
QUICK = 0.05  # seconds: shorter solves are repeated three times as often
NEAR = 2.0  # times the quickest peer: slower peers cannot win, and run once
FIGURED = ("OTT-JAX plain",)  # whose time is in a figure of its own, if it is brief
OVER, MISS, OK, FAILED = "over the limit", "MISS", "ok", "failed"

Dropped = dict[tuple[str, str], list[tuple[float, float]]]


def _warm_up(
    arena: Arena, contender: Contender, epsilon: float, tolerance: float, limit: float
) -> tuple[dict[str, Any], Run | None]:
    """Find a threshold that meets the tolerance; peers stop by norms of their own.

    A threshold that misses is tightened by as much as the error is too large. Ours
    get one attempt: what they ask is what the harness judges.
    """
    threshold = contender.start * tolerance
    found: dict[str, Any] = {"status": MISS, "threshold": threshold}
    run, spent = None, 0.0
    for _ in range(1 if contender.where == "here" else ATTEMPTS):
        try:
            new = arena.solve(contender, epsilon, threshold, limit)
        except PeerTimeout:
            return {**found, "status": OVER, "note": f"ended after {limit:.3g} s"}, run
        except PeerError as error:
            return {**found, "status": FAILED, "note": str(error)[:300]}, run
        # The same iterate again: the threshold was not below what it stopped at.
        same = run is not None and new.error >= 0.99 * run.error
        run, found["threshold"], spent = new, threshold, spent + new.seconds
        if run.error <= tolerance:
            return {**found, "status": OK}, run
        if run.seconds > limit or not run.finished:
            return {**found, "status": OVER}, run
        if spent > ATTEMPTS * limit / 2 or run.error == float("inf"):
            break
        threshold *= 0.1 if same else max(0.7 * tolerance / run.error, 1e-3)
    return found, run


def _is_peer(x: Contender) -> bool:
    return x.where != "here"


def race(
    arena: Arena,
    names: list[Contender],
    epsilon: float,
    cell: Cell,
    limit: float,
    repeats: int,
    budget: float,
) -> list[dict[str, Any]]:
    """Warm up all, then run those that met the tolerance in turn.

    Args:
      arena: with the problem loaded.
      names: the contenders.
      epsilon: in units of cost.
      cell: tolerance and dtype.
      limit: seconds a solve may take.
      repeats: timed rounds of those that are quick enough.
      budget: seconds that all rounds of one contender may take; slower ones run
        less often, and peers far behind the quickest peer only once.

    Returns:
      A record for each contender: status, error, seconds (median), runs and so on.
    """
    records: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {}
    rounds: dict[str, int] = {}
    warm: dict[str, float] = {}
    for x in names:
        found, run = _warm_up(arena, x, epsilon, cell.tolerance, limit)
        records[x.name] = {"contender": x.name, "library": x.library, **found}
        times[x.name], rounds[x.name] = [], 0
        if run is None:
            continue
        records[x.name].update(
            error=run.error,
            seconds=run.seconds,
            steps=run.steps,
            compile_seconds=run.compile_seconds,
        )
        if found["status"] == OK:
            warm[x.name] = run.seconds
            times[x.name] = [run.seconds]
    quickest = min(
        (warm[x.name] for x in names if _is_peer(x) and x.name in warm), default=0.0
    )
    for x in names:
        seconds = warm.get(x.name)
        if seconds is None:
            continue
        figured = x.name in FIGURED and seconds < BRIEF
        if _is_peer(x) and seconds > NEAR * quickest and not figured:
            continue
        most = repeats * (3 if seconds < QUICK else 1)
        rounds[x.name] = min(most, int(budget / max(seconds, 1e-6)))
        if rounds[x.name] > 0:
            times[x.name] = []
    alternate = lambda who: _alternate(
        arena, who, epsilon, limit, records, rounds, warm
    )
    for name, more in alternate(names):
        times[name].append(more)
    for x in names:
        if times[x.name]:
            records[x.name]["seconds"] = statistics.median(times[x.name])
        records[x.name]["runs"] = len(times[x.name])
    if any(_is_peer(x) for x in names):
        ours = [x for x in names if not _is_peer(x) and x.name in warm]
        _among_ourselves(ours, records, alternate)
    return list(records.values())


def _alternate(
    arena: Arena,
    names: list[Contender],
    epsilon: float,
    limit: float,
    records: dict[str, dict[str, Any]],
    rounds: dict[str, int],
    warm: dict[str, float],
) -> Iterator[tuple[str, float]]:
    """Names and seconds of timed runs, each contender as often as `rounds` says."""
    for number in range(max(rounds.values(), default=0)):
        first = number % len(names)  # nobody always comes after the same one
        for x in names[first:] + names[:first]:
            if number < rounds[x.name]:
                threshold = records[x.name]["threshold"]
                again = warm[x.name] < BRIEF
                try:
                    run = arena.solve(x, epsilon, threshold, limit, again)
                except PeerError:  # the warm-up has passed: once is enough to know
                    continue
                yield x.name, run.seconds


def _among_ourselves(
    ours: list[Contender],
    records: dict[str, dict[str, Any]],
    alternate: Callable[[list[Contender]], Iterator[tuple[str, float]]],
) -> None:
    """Time our own methods once more in turn, without peers: `own_seconds`.

    For the figure that compares them. Peers in between, in processes of their own,
    leave caches and memory as they like: programs that do the same in 3 ms then
    differed by up to 1.8 times, and by 1.1 among themselves.
    """
    best = min((records[x.name]["seconds"] for x in ours), default=0.0)
    ours = [x for x in ours if records[x.name]["seconds"] <= NEAR * best]
    times: dict[str, list[float]] = {x.name: [] for x in ours}
    for name, more in alternate(ours):
        times[name].append(more)
    for name, seconds in times.items():
        if seconds:
            records[name]["own_seconds"] = statistics.median(seconds)


def _limit(arena: Arena, longest: float, slow: float) -> float:
    """Seconds for a problem: `slow` times what auto takes at its hardest cell."""
    auto = contenders.OURS[0]
    seconds = [arena.solve(auto, 1 / 1200, HEADLINE, longest).seconds for _ in range(4)]
    return min(max(slow * min(seconds), SHORTEST), longest)


def _dropped(dropped: Dropped, x: Contender, epsilon: float, cell: Cell) -> bool:
    """Whether a contender was over the limit at an easier cell of the problem."""
    easier = dropped.get((x.name, cell.dtype), [])
    return any(epsilon <= e and cell.tolerance <= t for e, t in easier)


def of_case(arena: Arena, case: Case, options: Any, keep: Any) -> None:
    """Race all cells of a case; `keep` is given the records of each cell.

    A contender over the limit is not run at harder cells of the same problem.
    """
    problem: problems.Problem = case.make()
    zeros = bool((problem[1] == 0).any() or (problem[2] == 0).any())
    dropped: Dropped = {}
    loaded, limit = "", options.limit
    for cell in case.cells:
        if cell.dtype != loaded:
            arena.load(problem, cell.dtype)
            loaded = cell.dtype
            slow = options.slow / (3 if case.n > 2000 else 1)
            limit = _limit(arena, options.limit, slow)
        epsilon = value(cell.epsilon, problem)
        given = cell.limit or limit
        names, out = [], []
        for x in contenders.of_cell(cell, epsilon, case.n, zeros):
            if not arena.has(x) or (options.ours_only and _is_peer(x)):
                continue
            if not cell.only and _dropped(dropped, x, epsilon, cell):
                out.append({"contender": x.name, "library": x.library, "runs": 0})
                out[-1].update(status=OVER, note="at an easier setting")
            else:
                names.append(x)
        out += race(arena, names, epsilon, cell, given, options.repeats, options.budget)
        for line in out:
            if line["status"] == OVER:
                key = (line["contender"], cell.dtype)
                dropped.setdefault(key, []).append((epsilon, cell.tolerance))
        common = {
            "problem": case.name,
            "family": case.family,
            "n": case.n,
            "epsilon": cell.epsilon,
            "epsilon_value": epsilon,
            "tolerance": cell.tolerance,
            "dtype": cell.dtype,
            "limit": given,
            "pass_seconds": arena.pass_seconds(epsilon),
        }
        keep([{**common, **line} for line in out])


def headline(line: dict[str, Any]) -> bool:
    """Whether a record counts in the headline figure."""
    small = line["epsilon"] in ("0.01", "0.001", PAPER)
    return line["dtype"] == "float64" and small and line["tolerance"] == HEADLINE
