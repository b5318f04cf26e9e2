"""Table and plot of the large problems."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INTRODUCTION = """# Large problems

Problems whose cost matrix is never stored: time, passes over the costs and peak
memory of `auto`, and of over-relaxed Sinkhorn beside it.

    python -m experiments.large_scale             all, about 25 minutes on 2 cores
    python -m experiments.large_scale --quick     n = 4,000 only, nothing recorded
    python -m experiments.large_scale --colour    two photographs (needs scikit-image)
    python -m experiments.large_scale.cluster     on all devices of a job, see the file

Each solve runs in a process of its own (`case.py`), so that peak memory is its own;
the error is computed in float64 from the potentials that came back (`judge.py`).
"""
HEAD = (
    "| points | epsilon | to | method | passes | time / s | one pass / s | "
    "peak / GiB | true error | note |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def line(r: dict) -> str:
    """One row of the table."""
    met = "" if r["met"] else f"MISS ({r['status']})"
    return (
        f"| {r['d']}-D, n = {r['n']:,}, {r['dtype']} | {r['epsilon']:g} | "
        f"{r['tolerance']:g} | {r['method']} | {r['passes']} | {r['seconds']:.1f} | "
        f"{r['pass_seconds']:.2f} | {r['peak_gib']:.2f} | {r['error']:.1e} | {met} |"
    )


def _pairs(cases: dict) -> list[tuple[str, dict]]:
    out: dict[str, dict] = {}
    for r in cases.values():
        key = f"{r['d']}-D, n = {r['n']:,}, {r['epsilon']:g}"
        key += " (float64, 1e-8)" if r["dtype"] == "float64" else ""
        out.setdefault(key, {})[r["method"]] = r
    return list(out.items())


def _plot(cases: dict, path: Path) -> None:
    pairs = _pairs(cases)
    figure, axes = plt.subplots(figsize=(8, 0.42 * len(pairs) + 1.2))
    colours = {"auto": "C0", "sinkhorn": "C1", "plain": "C2"}
    labels = {
        "auto": "auto",
        "sinkhorn": "over-relaxed Sinkhorn",
        "plain": "plain Sinkhorn",
    }
    used = set()
    for row, (_, methods) in enumerate(pairs):
        for k, method in enumerate(m for m in colours if m in methods):
            r = methods[method]
            label = labels[method] if method not in used else None
            used.add(method)
            axes.barh(
                row + 0.27 * k, r["passes"], 0.25, color=colours[method], label=label
            )
            missed = "" if r["met"] else f", not there: {r['error']:.0e}"
            axes.text(r["passes"] * 1.03, row + 0.27 * k, f"{r['passes']}{missed}",
                      va="center", fontsize=7)  # fmt: skip
    axes.set_yticks(
        [i + 0.2 for i in range(len(pairs))], [k for k, _ in pairs], fontsize=8
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 2)
    axes.set_xlabel(
        "passes over the costs, exponentials or searches of all [n, n] pairs"
    )
    title = "to an error of 1e-4 or as said; epsilon as share of the largest cost"
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write(results: dict, folder: Path) -> None:
    """Write README.md and the plot."""
    environment = results["environment"]
    text = [INTRODUCTION]
    text.append(
        "Recorded run (`results.json`); "
        + ", ".join(f"{k}: {v}" for k, v in environment.items())
        + ".\n"
    )
    text.append(
        "Squared distances of normal points scaled to at most 1; memory is the largest "
        "resident set of the process (Python, JAX and compilation included). A search "
        "for largest entries counts as two passes. Sinkhorn is ended after three times "
        "the passes of `auto`: what is not there by then is a MISS.\n"
    )
    text.append(HEAD + "\n".join(line(r) for r in results["cases"].values()) + "\n")
    if "passes" in results:
        one, two = results["passes"]["exponentials"], results["passes"]["stored"]
        ratio = one["streamed"] / one["exponentials"]
        text.append(
            f"One streamed pass, 3-D, n = 20,000, float32: "
            f"{1e3 * one['streamed']:.0f} ms, its exponentials alone "
            f"{1e3 * one['exponentials']:.0f} ms: {ratio:.2f} times.\n"
        )
        whole = two["solve streamed"] / two["solve stored"]
        text.append(
            f"Streamed against stored, 3-D, n = 4,000, float32: a pass "
            f"{two['pass streamed'] / two['pass stored']:.2f} times, a whole solve to "
            f"1e-4 {whole:.2f} times ({1e3 * two['solve streamed']:.0f} and "
            f"{1e3 * two['solve stored']:.0f} ms).\n"
        )
    text.append("![passes](passes.png)\n")
    if "colour" in results:
        c = results["colour"]
        text.append(
            f"Colour transfer: {c['pixels'][0]:,} and {c['pixels'][1]:,} pixels, "
            f"{c['colours'][0]:,} and {c['colours'][1]:,} different colours with their "
            f"numbers as masses; epsilon {c['epsilon']:g} of the largest cost, to "
            f"{c['tolerance']:g}: {c['passes']} passes, {c['seconds']:.0f} s, "
            f"true error {c['error']:.1e}.\n\n![colour transfer](colour.png)\n"
        )
    (folder / "README.md").write_text("\n".join(text))
    _plot(results["cases"], folder / "passes.png")
