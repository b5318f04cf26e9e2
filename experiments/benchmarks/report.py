"""The page: a picture, ten rows, where we are not ahead. The terminal has the bars."""

import json
import math
from pathlib import Path
from typing import Any

from experiments import record
from experiments.benchmarks import bars, race, unregularised
from experiments.benchmarks.bars import Duel, Record, groups
from experiments.benchmarks.cases import HEADLINE, PAPER

COMMAND = "python -m experiments.benchmarks"
ROWS = 10  # of the table
NOISE = 1.1  # ratio of two times up to which programs that do the same may differ
PEERS = ("OTT-JAX", "RegOT", "POT")


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


def first_call() -> str:
    """What `experiments.figures` found of compilation, where it was run."""
    path = Path(__file__).parents[1] / "figures" / "results.json"
    if not path.exists():
        return ""
    results = json.loads(path.read_text())
    seconds = [x["auto"]["compile_s"] for x in results["passes"]]
    facts = results["environment"]
    return (
        f"With an empty cache `auto` compiled for {min(seconds):.1f} to "
        f"{max(seconds):.1f} s\non {len(seconds)} problems ({facts['processor']}, "
        f"{facts['cpu_count']} cores, {facts['date']}, "
        "[figures](../experiments/figures/README.md))."
    )


def compared(results: dict[str, Any]) -> str:
    """What `first_calls` found of both libraries that compile; empty without it."""
    found = results.get("first_calls")
    if found is None:
        return ""
    by_library: dict[bool, list[float]] = {True: [], False: []}
    for seconds in found["compile_seconds"].values():
        for contender, x in seconds.items():
            by_library[contender == "auto"].append(x)
    ours, peer = (f"{min(x):.1f} to {max(x):.1f} s" for x in by_library.values())
    return (
        f"\nOn the four problems of the picture `auto` compiled for {ours}\n"
        f"and OTT-JAX for {peer}, in one run ({found['environment']['date']}). "
        "RegOT and POT compile nothing."
    )


def _chosen(records: list[Record]) -> list[dict[str, Record]]:
    """One setting of each family: the smallest epsilon to 1e-8, most contenders."""
    best: dict[str, dict[str, Record]] = {}
    for group in groups(records):
        first = next(iter(group.values()))
        headline = race.headline(first) and first["epsilon"] == PAPER
        if not headline or bars.duel(group) is None:
            continue
        known = best.get(first["family"])
        size = (len(group), first["n"])
        if known is None or size > (len(known), next(iter(known.values()))["n"]):
            best[first["family"]] = group
    families = sorted(best, key=lambda x: -len(best[x]))
    return [best[x] for x in families[:ROWS]]


def _cell(group: dict[str, Record], library: str) -> str:
    """Milliseconds of the best variant of a library, or why there are none."""
    mine = [x for x in group.values() if x["library"] == library]
    good = [x for x in mine if x["status"] == race.OK]
    if good:
        return f"{1e3 * min(x['seconds'] for x in good):.1f}"
    limits = [x["limit"] for x in mine if x["status"] == race.OVER]
    if limits:
        return f"over {1e3 * max(limits):,.0f}"
    return "missed" if mine else "not run"


def ten_rows(records: list[Record]) -> str:
    """Milliseconds of a warm solve: `auto`, and each library at its best."""
    rows = []
    for group in _chosen(records):
        duel = bars.duel(group)
        assert duel is not None
        auto = duel.auto
        ours = f"{1e3 * auto['seconds']:.1f}" if auto["status"] == race.OK else "missed"
        ratio = f"{'' if duel.best else 'over '}{duel.ratio:.1f}"
        missed = sum(map(len, duel.misses.values()))
        cells = [_cell(group, x) for x in PEERS]
        rows.append([auto["problem"], ours, *cells, ratio, f"{missed} of {duel.peers}"])
    headers = ["problem", "jaxsns", *PEERS, "best peer / jaxsns", "peers that missed"]
    return record.table(rows, headers)


def _mean(duels: list[Duel]) -> float:
    return math.exp(sum(math.log(x.ratio) for x in duels) / len(duels))


def _at(x: Record) -> str:
    return f"{x['problem']}, epsilon {x['epsilon']}, tolerance {x['tolerance']:g}"


def summary(records: list[Record]) -> str:
    """How often `auto` is ahead, by how much, and where it is not."""
    found = [bars.duel(group) for group in groups(records)]
    duels = [x for x in found if x is not None]
    headline = [x for x in duels if race.headline(x.auto)]
    if not headline:
        return "The headline settings were not run."
    least = min(duels, key=lambda x: x.ratio)
    failed = [_at(x.auto) for x in duels if x.auto["status"] != race.OK]
    behind = [x for x in duels if x.ratio < 1]
    missed = sum(sum(map(len, x.misses.values())) for x in duels)
    bounds = sum(x.best is None for x in headline)
    ours, over, most = 0, 0, (0.0, "")
    for group in groups(x for x in records if x["library"] == "jaxsns"):
        good = [x for x in group.values() if x["status"] == race.OK]
        if "auto" not in group or not good:
            continue
        auto, best = group["auto"], min(good, key=bars.own_seconds)
        ratio = bars.own_seconds(auto) / bars.own_seconds(best)
        ours, over = ours + 1, over + (ratio > NOISE)
        most = max(most, (ratio, f"{_at(auto)}, {auto['dtype']}: {best['contender']}"))
    runs = sum(x.peers for x in duels)
    lost = "No peer was faster in any setting"
    if behind:
        lost = f"A peer was faster: {', '.join(_at(x.auto) for x in behind)}"
    short = "`auto` always reached the tolerance"
    if failed:
        short = f"`auto` missed the tolerance: {', '.join(failed)}"
    mean = _mean(headline)
    return f"""- At tolerance {HEADLINE:g} and epsilon at most 0.01 of the largest cost
  (float64): {len(headline)} settings. The fastest peer takes {mean:.1f} times as long
  in geometric mean. In {bounds} of them no peer finished, so the ratio is a bound.
- Smallest ratio of all {len(duels)} settings with peers: {least.ratio:.2f}
  ({_at(least.auto)}).
- {lost}.
- {short}.
- Peers missed the tolerance or the time limit in {missed:,} of {runs:,} runs.
- Another method of ours was more than {NOISE:g} times as fast as `auto` in {over} of
  {ours} settings. Worst: {most[0]:.2f} times
  ({most[1]})."""


def text(results: dict[str, Any], folder: Path) -> str:
    """Return the whole page; folder: beside it, with the picture and the records."""
    records = results["records"]
    facts = results["environment"]
    dates = [facts["date"]]
    dates += [x["environment"]["date"] for x in results.get("earlier", [])]
    days = min(dates) if min(dates) == max(dates) else f"{min(dates)} to {max(dates)}"
    minutes = results.get("seconds", math.nan) / 60
    minutes += sum(x.get("seconds", 0) for x in results.get("earlier", [])) / 60
    lines = results.get("unregularised", [])
    lines = [x for x in lines if x["problem"] == lines[0]["problem"]]
    extra = unregularised.section(lines)
    here = folder.name
    return f"""# Benchmarks

{summary(records)}

![Time to reach a tolerance, four problems]({here}/time_error.svg)

*Best variant of each library. Epsilon is {PAPER} of the largest cost; float64.
Dashed: the first call, which compiles. Solvers that missed the tolerance are not shown.
{facts["processor"]}, {facts["cpu_count"]} cores, {days}.*

## Ten problems

Milliseconds of a warm solve to {HEADLINE:g} at epsilon = {PAPER} of the largest cost,
float64. The best variant of each library counts. "Over" means more than the time limit.

{ten_rows(records)}

*{facts["processor"]}, {facts["cpu_count"]} cores, {days}; jax {facts["jax"]}.
{_peers(results)}.{_left_out(results)}*

All {len(records):,} records, one a line, with error, steps and threshold:
[records.csv]({here}/records.csv).

## The first call

The first call compiles and is not in the times of the tables.
{first_call()}{compared(results)}
JAX's persistent cache keeps compiled programs between processes.

{extra}

## How it was measured

Made by `{COMMAND}` in {minutes:.0f} minutes, several runs together. `--report-only`
makes this page and its picture again from `{here}/records.csv`, and prints the goals
that developers hold the library to.

- Errors are L1 errors of both marginals over the mass. The harness computes them in
  float64 from the returned potentials.
- Times are medians of warm runs, {max((x["runs"] for x in records), default=0)} at
  most. Contenders alternate in a rotating order.
- A peer gets up to {race.ATTEMPTS} thresholds until its error is below the tolerance.
- Missed: the error stayed above the tolerance at every threshold. Over: above the time
  limit, at this setting or an easier one. Where no peer is left, a ratio is the limit
  over our time.
- At n > 2000 the slowest variants of peers and most settings are left out.
- Runs of different days can differ by a third. Compare ratios, not milliseconds.

Settings of peers: [README](../experiments/benchmarks/README.md).
Penalised marginals: [a page of its own](benchmarks/unbalanced.md).
"""
