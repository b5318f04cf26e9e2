"""The page of a run on an accelerator."""

from typing import Any

from experiments import record

COLUMNS = (
    "seconds",
    "compile_seconds",
    "sweeps",
    "newton_steps",
    "converged",
    "error",
    "temporary_mib",
    "peak_mib",
)


def failures(results: dict[str, Any], ours: bool = False) -> list[str]:
    """What failed, one line each; if `ours` not what a peer failed at."""
    out = []
    for part in results["parts"]:
        if ours and part["who"] == "theirs":
            continue
        name = f"{part['part']} ({part['who']})"
        if "failed" in part:
            out.append(f"{name}: {part['failed']}")
        for row in part["rows"]:
            if "failed" in row:
                out.append(f"{name}, {row['case']}, {row['who']}: {row['failed']}")
    return out


def _table(rows: list[dict[str, Any]]) -> str:
    rows = [row for row in rows if "failed" not in row]
    used = [name for name in COLUMNS if any(name in row for row in rows)]
    cells = [
        [row["case"], row["who"], *(row.get(name, "") for name in used)] for row in rows
    ]
    return record.table(cells, ["case", "who", *used])


def text(results: dict[str, Any]) -> str:
    """The page: one table a part, then what failed and what was left out."""
    lines = [f"# {results['environment']['device']}", ""]
    if results["rehearsal"]:
        lines += ["A rehearsal at toy size: its times say nothing.", ""]
    lines += [record.describe_environment(results["environment"]) + ".", ""]
    lines += [f"OTT-JAX: {results['ott']}. {results['seconds']:.0f} s in all.", ""]
    for name in dict.fromkeys(part["part"] for part in results["parts"]):
        parts = [part for part in results["parts"] if part["part"] == name]
        rows = [row for part in parts for row in part["rows"]]
        lines += [f"## {name}", ""]
        for part in parts:
            lines += [f"    {line}" for line in part.get("said", [])]
        lines += (
            [_table(sorted(rows, key=lambda row: row["case"])), ""] if rows else [""]
        )
    lines += ["## What failed", ""]
    lines += [f"- {line}" for line in failures(results)] or ["Nothing."]
    lines += ["", "## What was left out", ""]
    lines += [f"- {name}: {why}" for name, why in results["skipped"]] or ["Nothing."]
    return "\n".join(lines) + "\n"
