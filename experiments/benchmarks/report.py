"""The page: the figures with their bars, then all that was measured."""

import math
from pathlib import Path
from typing import Any

from experiments import record
from experiments.benchmarks import bars, race, unregularised
from experiments.benchmarks.bars import Record, groups
from experiments.benchmarks.batch_rounds import BRIEF
from experiments.benchmarks.contenders import OURS, PEERS

COMMAND = "python -m experiments.benchmarks"


def line(records: list[Record]) -> str:
    """One line on the terminal about one setting."""
    group = {x["contender"]: x for x in records}
    first = records[0]
    text = f"{first['epsilon']}, {first['tolerance']:g}, {first['dtype']}:"
    if "auto" in group and "seconds" in group["auto"]:
        auto = group["auto"]
        text += f" auto {1e3 * auto['seconds']:.1f} ms {auto['status']}"
    found = bars.duel(group)
    if found is not None and found.best is not None:
        best = found.best
        text += f", {best['contender']} {1e3 * best['seconds']:.1f} ms"
    if found is not None:
        text += f", {'' if found.best else 'more than '}{found.ratio:.1f} times"
        text += f"; {sum(map(len, found.misses.values()))} of {found.peers} missed"
    return text


def figures_section(records: list[Record]) -> str:
    """Table of all bars."""
    rows = []
    for make in bars.SECTIONS.values():
        for what, bar, measured, met in make(records)[0]:
            verdict = {True: "met", False: "MISSED", None: "not measured"}[met]
            rows.append([what, bar, measured, verdict])
    return record.table(rows, ["figure", "bar", "measured", "verdict"])


def _cell(x: Record) -> str:
    runs = f" ({x['runs']})" if 0 < x["runs"] < 5 else ""
    if x["status"] == race.OK:
        return f"{1e3 * x['seconds']:.1f}{runs}"
    if x["status"] == race.MISS:
        return f"MISS {x['error']:.0e}"
    return {race.OVER: "over", race.FAILED: "failed"}[x["status"]]


def times(records: list[Record]) -> str:
    """Milliseconds of all contenders: a table for each problem, a column a setting."""
    out = []
    for name in dict.fromkeys(x["problem"] for x in records):
        mine = [x for x in records if x["problem"] == name]
        settings = groups(mine)
        peers = [g for g in settings if bars.duel(g) is not None]
        for title, chosen in (
            ("with peers", peers),
            ("our own methods", [g for g in settings if g not in peers]),
        ):
            if not chosen:
                continue
            firsts = [next(iter(g.values())) for g in chosen]
            headers = ["time / ms"] + [
                f"{x['epsilon']}, {x['tolerance']:g}"
                + (", f32" if x["dtype"] == "float32" else "")
                for x in firsts
            ]
            present = {c for g in chosen for c in g}
            names = [x.name for x in OURS + PEERS if x.name in present]
            rows = [
                [c, *(_cell(g[c]) if c in g else "" for g in chosen)] for c in names
            ]
            limit = firsts[0]["limit"]
            out.append(
                f"### {name}, {title}\n\nLimit of one solve {limit:.2g} s. Columns: "
                f"epsilon, tolerance.\n\n{record.table(rows, headers)}\n"
            )
    return "\n".join(out)


def _peers(results: dict[str, Any]) -> str:
    about = results.get("peers", {})
    parts = []
    ott = about.get("ott")
    if ott is None:
        parts.append("OTT-JAX: not installed")
    else:
        parts.append(
            f"OTT-JAX {ott['ott-jax']} in an environment of its own with jax "
            f"{ott['jax']} on {ott['device']} (it works in full up to jax 0.8.1)"
        )
    cpu = about.get("cpu", {})
    for name in ("regot", "POT", "mdot-tnt", "torch"):
        parts.append(f"{name} {cpu[name]}" if name in cpu else f"{name}: not installed")
    return "; ".join(parts)


def _left_out(results: dict[str, Any]) -> str:
    names = results.get("left_out")
    if not names:
        return ""
    return f"\n\nLeft out, for lack of time: {', '.join(names)}."


def _earlier(results: dict[str, Any]) -> str:
    """A line for each day and machine."""
    problems: dict[str, list[str]] = {}
    for run in results.get("earlier", []):
        where = record.describe_environment(run["environment"])
        problems.setdefault(where, []).extend(run["problems"])
    return "".join(
        f"\n\nFrom earlier runs of the same command ({where}): {', '.join(names)}."
        for where, names in problems.items()
        if names
    )


def _machines(results: dict[str, Any]) -> str:
    """What must not be compared, where runs were on different machines."""
    facts = [results["environment"]]
    facts += [x["environment"] for x in results.get("earlier", []) if x["problems"]]
    if len({(x["device"], x["processor"]) for x in facts}) == 1:
        return ""
    return (
        "\n\nThese are different machines. A ratio, and a number of passes, is of one "
        "run; milliseconds of problems on different machines, and lines that join "
        "their sizes in the second picture, do not compare."
    )


def text(results: dict[str, Any], folder: Path) -> str:
    """The whole page; folder: beside it, with the pictures."""
    records = results["records"]
    runs = [x["runs"] for x in records if x["runs"] > 0]
    details = "\n\n".join(
        f"## {title}\n\n{table}"
        for title, make in bars.SECTIONS.items()
        if (table := make(records)[1])
    )
    pictures = "\n\n".join(
        f"![{title}]({folder.name}/{name})"
        for title, name in (
            ("time to reach an error", "time_error.png"),
            ("time by size", "time_n.png"),
        )
        if (folder / name).exists()
    )
    minutes = results.get("seconds", math.nan) / 60
    extra = unregularised.section(results.get("unregularised", []))
    return f"""# Benchmarks

Made by `{COMMAND}` in {minutes:.0f} minutes on
{record.describe_environment(results["environment"])}.
Peers: {_peers(results)}.{_left_out(results)}{_earlier(results)}{_machines(results)}

Errors are L1 errors of both marginals over the mass, computed by the harness in float64
from the returned potentials. Times are medians of warm runs that alternate between the
contenders in a rotating order, {max(runs, default=0)} at most; a number in brackets
says that there were fewer than 5. Runs below {BRIEF} s come right after one of the
same that is not timed. MISS: the error stayed above the tolerance, whatever threshold
was given; over: above the limit of time, at this setting or an easier one. Neither
counts for anyone; where no peer is left, a ratio is the limit over the time of `auto`,
a lower bound. epsilon is a fraction of the largest cost, or of the mean where that is
said.
At n > 2000 the slowest variants of peers and most settings are left out.
Peers' settings: [README](../experiments/benchmarks/README.md).

## Figures

{figures_section(records)}

{pictures}

{details}

{extra}

## All times

{times(records)}"""
