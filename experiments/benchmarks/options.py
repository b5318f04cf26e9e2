"""The command line of `python -m experiments.benchmarks`."""

import argparse
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    """All options; their defaults are the full run."""
    out = argparse.ArgumentParser(
        "python -m experiments.benchmarks", description=__doc__
    )
    add = out.add_argument
    add("--quick", action="store_true", help="a handful of problems, under 5 minutes")
    add("--seeds", type=int, nargs="+", default=[0], help="problems are drawn from")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="SUBSTRING",
        help="cases whose name has one of them",
    )
    add(
        "--add",
        action="store_true",
        help="keep what the files in --output say of other cases",
    )
    add("--ours-only", action="store_true", help="without peers")
    add("--repeats", type=int, default=5, help="timed runs of each contender")
    add(
        "--budget",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="of all timed runs of a contender at one setting",
    )
    add(
        "--limit",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="that one solve may take at most",
    )
    add(
        "--slow",
        type=float,
        default=None,
        metavar="TIMES",
        help="what auto takes at 1/1200: also a limit of one solve; a third of it "
        "where n > 2000; default 25, or 10 with --quick",
    )
    add(
        "--time-budget",
        type=float,
        default=float("inf"),
        metavar="MINUTES",
        help="after which no further case is begun",
    )
    add("--ott-python", default=None, help="interpreter that has ott-jax")
    add("--cpu-python", default=None, help="interpreter that has regot, pot, mdot-tnt")
    add("--batches", action="store_true", help="the batched suite as well")
    add("--no-single", action="store_true", help="no single problems")
    add("--report-only", action="store_true", help="page and picture from the files")
    add(
        "--output",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="default: docs, or output with --quick or --only",
    )
    return out


def wanted(options: argparse.Namespace, name: str) -> bool:
    """Is the case of this name to be run?"""
    return not options.only or any(x in name for x in options.only)


def parse() -> argparse.Namespace:
    """Options of this process; `output` filled in."""
    options = parser().parse_args()
    if options.slow is None:
        options.slow = 10.0 if options.quick else 25.0
    if options.output is None:
        part = options.quick or options.only or options.ours_only
        options.output = Path("output" if part else "docs")
    return options
