"""The figures that the library is held to, computed from the records of a run.

Every function returns (statements, table): a statement is (what, bar, measured, met).
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

from experiments import record
from experiments.benchmarks import race
from experiments.benchmarks.cases import MEANS, PAPER

Record = dict[str, Any]


class Statement(NamedTuple):
    """One bar and what was measured against it; met is None if nothing was."""

    what: str
    bar: str
    measured: str
    met: bool | None


class Duel(NamedTuple):
    """auto against the best peer of one setting."""

    auto: Record
    best: Record | None  # the quickest peer that met the tolerance
    ratio: float  # its time over that of auto; a lower bound where best is None
    peers: int  # that ran
    misses: dict[str, list[str]]  # peers that did not meet the tolerance, by why


KEYS = ("problem", "epsilon", "tolerance", "dtype")


def groups(records: Iterable[Record]) -> list[dict[str, Record]]:
    """Records of one setting together, by contender."""
    out: dict[tuple, dict[str, Record]] = {}
    for line in records:
        out.setdefault(tuple(line[x] for x in KEYS), {})[line["contender"]] = line
    return list(out.values())


def duel(group: dict[str, Record]) -> Duel | None:
    """Compare auto with the peers of a setting; None if no peer ran."""
    peers = [x for x in group.values() if x["library"] != "jaxsns"]
    if not peers or "auto" not in group:
        return None
    auto = group["auto"]
    good = [x for x in peers if x["status"] == race.OK]
    best = min(good, key=lambda x: x["seconds"], default=None)
    seconds = auto["limit"] if best is None else best["seconds"]
    misses: dict[str, list[str]] = {}
    for x in peers:
        if x not in good:
            misses.setdefault(x["status"], []).append(x["contender"])
    return Duel(auto, best, seconds / auto["seconds"], len(peers), misses)


def _name(x: Duel) -> str:
    return x.best["contender"] if x.best else "a lower bound"


def _duels(records: Iterable[Record]) -> list[Duel]:
    found = (duel(group) for group in groups(records))
    return [x for x in found if x is not None]


def _duel_table(duels: list[Duel]) -> str:
    rows = [
        [
            x.auto["problem"],
            x.auto["epsilon"],
            x.auto["status"],
            1e3 * x.auto["seconds"],
            x.best["contender"] if x.best else f"none in {x.auto['limit']:.2g} s",
            f"{1e3 * x.best['seconds']:.1f}" if x.best else "",
            f"{'' if x.best else '> '}{x.ratio:.2f}",
            f"{sum(map(len, x.misses.values()))} of {x.peers}",
        ]
        for x in duels
    ]
    headers = ["problem", "epsilon", "auto", "auto / ms", "best peer", "its ms"]
    missed = [
        f"- {x.auto['problem']}, {x.auto['epsilon']}: "
        + "; ".join(f"{why}: {', '.join(who)}" for why, who in x.misses.items())
        for x in duels
        if x.misses
    ]
    return (
        record.table(rows, [*headers, "ratio", "peers that missed"])
        + "\n\nPeers that missed the tolerance or the limit of time:\n\n"
        + "\n".join(missed or ["none"])
    )


def small_epsilon(records: list[Record]) -> tuple[list[Statement], str]:
    """Figure 1: float64, 1e-8, epsilon at most 1e-2 of the largest cost."""
    duels = _duels(x for x in records if race.headline(x))
    if not duels:
        return [Statement("small epsilon", "", "not run", None)], ""
    ratios = [x.ratio for x in duels]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    worst = min(duels, key=lambda x: x.ratio)
    bad = [x.auto["problem"] for x in duels if x.auto["status"] != race.OK]
    at = f"{worst.auto['problem']}, epsilon {worst.auto['epsilon']}"
    bounds = sum(x.best is None for x in duels)
    note = f" (a lower bound in {bounds})" if bounds else ""
    return [
        Statement(
            "1. best peer / auto, 1e-8, epsilon <= 1e-2, least",
            ">= 1.5",
            f"{min(ratios):.2f} ({at})",
            min(ratios) >= 1.5,
        ),
        Statement(
            "1. the same, geometric mean",
            ">= 5",
            f"{mean:.2f} over {len(duels)} settings{note}",
            mean >= 5,
        ),
        Statement(
            "1. auto not converged",
            "none",
            ", ".join(bad) or "none",
            not bad,
        ),
    ], _duel_table(duels)


def large_epsilon(records: list[Record]) -> tuple[list[Statement], str]:
    """Figure 2: 1e-3, epsilon at least 0.1 of the mean cost."""
    chosen = [x for x in records if x["epsilon"] in MEANS and x["tolerance"] == 1e-3]
    duels = _duels(x for x in chosen if x["dtype"] == "float64")
    if not duels:
        return [Statement("large epsilon", "", "not run", None)], ""
    worst = min(duels, key=lambda x: x.ratio)
    at = f"{worst.auto['problem']}, epsilon {worst.auto['epsilon']}"
    out = [
        Statement(
            "2. best peer / auto, 1e-3, epsilon >= 0.1 of the mean, least",
            ">= 0.95",
            f"{worst.ratio:.2f} ({at}, {_name(worst)})",
            worst.ratio >= 0.95,
        )
    ]
    plain = [
        (group["OTT-JAX plain"], group["auto"])
        for group in groups(chosen)
        if {"OTT-JAX plain", "auto"} <= set(group)
        and group["auto"]["n"] >= 1000
        and group["auto"]["dtype"] == "float64"
        and group["OTT-JAX plain"]["status"] == race.OK
    ]
    if plain:
        ratio, problem = min(
            (x["seconds"] / y["seconds"], y["problem"]) for x, y in plain
        )
        out.append(
            Statement(
                "2. OTT-JAX plain, log domain / auto, n >= 1000, least",
                ">= 5",
                f"{ratio:.2f} ({problem})",
                ratio >= 5,
            )
        )
    return out, _duel_table(duels)


def passes(records: list[Record]) -> tuple[list[Statement], str]:
    """Figure 3: auto at 1e-8 and 1/1200 in exponential passes, and their growth."""
    lines = [
        x
        for x in records
        if race.headline(x) and x["epsilon"] == PAPER and x["contender"] == "auto"
    ]
    count = {x["problem"]: x["seconds"] / x["pass_seconds"] for x in lines}
    out = []
    for what, families, bar in (
        ("assignment, W2, points", ("assignment", "MNIST W2", "points"), 50),
        ("W1", ("MNIST W1",), 150),
    ):
        some = [
            (count[x["problem"]], x) for x in lines if x["family"].startswith(families)
        ]
        if some:
            most, line = max(some, key=lambda x: x[0])
            measured = f"{most:.0f} ({line['problem']})"
            name = f"3. passes of auto, 1e-8, 1/1200, {what}, most"
            out.append(Statement(name, f"<= {bar}", measured, most <= bar))
    growth = []
    for family in dict.fromkeys(x["family"] for x in lines):
        by_n = {x["n"]: x["problem"] for x in lines if x["family"] == family}
        if {1000, 5000} <= set(by_n):  # with several seeds: the last of each
            small, large = by_n[1000], by_n[5000]
            growth.append((count[large] / count[small], f"{large} over {small}"))
    if growth:
        most, which = max(growth)
        out.append(
            Statement(
                "3. growth of passes from n=1000 to 5000, most",
                "<= 1.3",
                f"{most:.2f} ({which})",
                most <= 1.3,
            )
        )
    rows = [
        [x["problem"], x["n"], 1e3 * x["pass_seconds"], 1e3 * x["seconds"]]
        + [count[x["problem"]], x.get("error", math.nan), x["status"]]
        for x in lines
    ]
    headers = ["problem", "n", "pass / ms", "auto / ms", "passes", "error", "status"]
    return out, record.table(rows, headers)


def assignment(records: list[Record]) -> tuple[list[Statement], str]:
    """Figure 4: random assignment n=500 to 1e-13."""
    found = [x for x in groups(records) if next(iter(x.values()))["tolerance"] == 1e-13]
    out, rows = [], []
    for group in found:
        auto = group["auto"]
        for other, bar in (
            ("RegOT SSNS", 1.0),
            ("sinkhorn, plain", 500.0),
            ("OTT-JAX plain", 500.0),
            ("sinkhorn", 1.0),
        ):
            if other not in group:
                continue
            line = group[other]
            reached = line["status"] == race.OK
            seconds = line.get("seconds", line["limit"])
            ratio = seconds / auto["seconds"]
            # What stopped short of the tolerance has only a lower bound.
            met = auto["status"] == race.OK and ratio >= bar
            out.append(
                Statement(
                    f"4. {auto['problem']} to 1e-13: {other} / auto",
                    f">= {bar:g}",
                    f"{'' if reached else '> '}{ratio:.1f}"
                    + ("" if reached else f" ({line['status']})"),
                    met if reached or met else None,
                )
            )
        rows += [
            [x["problem"], x["contender"], x["status"], x.get("error", math.nan)]
            + [x.get("steps", 0), x.get("seconds", math.nan)]
            for x in group.values()
        ]
    headers = ["problem", "contender", "status", "error", "steps", "time / s"]
    return out, record.table(rows, headers) if rows else ""


def own_seconds(line: Record) -> float:
    """Seconds in turn with our own methods only, where peers took part as well."""
    return line.get("own_seconds", line["seconds"])


def own_methods(records: list[Record]) -> tuple[list[Statement], str]:
    """Figure 5: auto against the best of our own methods, every setting."""
    ratios, lost, unreached = [], [], []
    for group in groups(x for x in records if x["library"] == "jaxsns"):
        auto = group.get("auto")
        good = [x for x in group.values() if x["status"] == race.OK]
        if auto is None or not good:
            unreached.append(next(iter(group.values())))
            continue
        best = min(good, key=own_seconds)
        if auto["status"] != race.OK:
            lost.append((auto, best))
        else:
            ratios.append((own_seconds(auto) / own_seconds(best), auto, best))
    ratios.sort(key=lambda x: -x[0])
    if not ratios and not lost:
        return [Statement("own methods", "", "not run", None)], ""
    over = [x for x in ratios if x[0] > 1.3]
    most = f"{ratios[0][0]:.2f}, {len(over)} of {len(ratios)} over" if ratios else ""
    if over:
        # Where the best took the same steps, and no other, the machine differed.
        alike = sum(auto["steps"] == best["steps"] for _, auto, best in over)
        most += f", {alike} of these with the same steps"
    names = [f"{x['problem']} {x['epsilon']} {x['tolerance']:g}" for x, _ in lost]
    rows = [
        [a["problem"], a["epsilon"], f"{a['tolerance']:g}", a["dtype"]]
        + [1e3 * own_seconds(a), b["contender"], 1e3 * own_seconds(b), ratio]
        for ratio, a, b in ratios[: max(len(over), 10)]
    ]
    rows += [
        [a["problem"], a["epsilon"], f"{a['tolerance']:g}", a["dtype"]]
        + [1e3 * own_seconds(a), b["contender"], 1e3 * own_seconds(b), math.inf]
        for a, b in lost
    ]
    headers = ["problem", "epsilon", "tolerance", "dtype", "auto / ms"]
    headers += ["best of ours", "its ms", "auto / best"]
    text = record.table(rows, headers)
    text += "\n\nIn turn with our own methods only, no peers in between."
    if unreached:
        missed = ", ".join(
            f"{x['problem']} {x['epsilon']} {x['tolerance']:g} {x['dtype']}"
            for x in unreached
        )
        text += f"\n\nReached by none of ours: {missed}."
    return [
        Statement("5. auto / best of our own methods, most", "<= 1.3", most, not over),
        Statement(
            "5. auto misses where another of ours does not",
            "none",
            ", ".join(names) or "none",
            not lost,
        ),
    ], text


SECTIONS = {
    "Small epsilon, tolerance 1e-8, float64": small_epsilon,
    "Large epsilon, tolerance 1e-3, float64": large_epsilon,
    "`auto` in exponential passes": passes,
    "Random assignment to machine accuracy": assignment,
    "`auto` against our own methods": own_methods,
}
