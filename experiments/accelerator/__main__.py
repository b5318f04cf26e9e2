"""Everything there is to know about one accelerator, in at most ten minutes.

    python -m experiments.accelerator [--ott-python PYTHON] [--only PART ...]
    python -m experiments.accelerator --rehearse

Tests, single problems, batches, streamed points, kernels, first calls: each part is a
process of its own with a limit of time. Writes one JSON file and one page. A part that
is left out or cut off says why. `--rehearse` runs all of it at toy size on any device.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from experiments.accelerator import report

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["tests/test_pallas.py", "tests/test_float32.py"]
REHEARSED = ["tests/test_pallas.py", "-k", "log_sums or sweeps"]


class Part(NamedTuple):
    """A process: what it is called, who runs it, and the seconds it may take."""

    name: str
    who: str  # "pytest", "ours" or "theirs"
    seconds: float


# In the order of what is wanted most; together below ten minutes.
PARTS = [
    Part("kernels", "ours", 60),
    Part("batches", "ours", 80),
    Part("batches", "theirs", 50),
    Part("streamed", "ours", 90),
    Part("streamed", "theirs", 60),
    Part("dense", "ours", 50),
    Part("dense", "theirs", 40),
    Part("first_calls", "ours", 50),
    Part("tests", "pytest", 100),
]
MINUTES = 10.0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="toy sizes, any device")
    parser.add_argument("--ott-python", default=None, help="interpreter with OTT-JAX")
    parser.add_argument("--only", nargs="*", default=[], help="names of parts")
    parser.add_argument("--output", type=Path, default=None, help="folder of the files")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    return parser.parse_args()


def _answer(python: str, code: str) -> str | None:
    """Last line that an interpreter prints, or None."""
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(),
    )
    lines = done.stdout.strip().splitlines()
    return lines[-1] if done.returncode == 0 and lines else None


def _environment() -> dict[str, str]:
    changed = {
        "OPENBLAS_NUM_THREADS": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # peaks, and room for a peer
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    return {**os.environ, **changed}


def _command(part: Part, python: str, path: Path, rehearse: bool) -> list[str]:
    if part.who == "pytest":
        chosen = REHEARSED if rehearse else [*TESTS, "-m", "accelerator"]
        options = ["-q", "-p", "no:cacheprovider", "--tb=line"]
        return [python, "-m", "pytest", *options, *chosen]
    module = f"experiments.accelerator.{part.who}"
    sizes = "rehearsal" if rehearse else "full"
    return [python, "-m", module, part.name, str(path), sizes]


def run(part: Part, python: str, limit: float, rehearse: bool) -> dict[str, Any]:
    """Run a part; what it wrote, how long it took, and what went wrong."""
    start = time.perf_counter()
    failed = None
    environment = _environment()
    if rehearse:  # most of a rehearsal is compilation
        environment.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    elif part.who == "pytest":
        environment.setdefault("XLA_FLAGS", "")  # those of the tests are for a CPU
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows"
        command = _command(part, python, path, rehearse)
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
        try:
            said = child.communicate(timeout=limit)[0]
            if child.returncode != 0:
                failed = " / ".join(said.strip().splitlines()[-3:])[-500:]
        except subprocess.TimeoutExpired:
            child.kill()
            said = child.communicate()[0]
            failed = f"cut off after {limit:.0f} s"
        lines = path.read_text().splitlines() if path.exists() else []
    result = {"part": part.name, "who": part.who, "rows": list(map(json.loads, lines))}
    if part.who == "pytest":
        result["said"] = said.strip().splitlines()[-1:]
    result["seconds"] = time.perf_counter() - start
    return result if failed is None else {**result, "failed": failed}


def ott_python(given: str | None) -> tuple[str | None, str]:
    """Interpreter that has OTT-JAX, or None and why there is none."""
    made = ROOT / ".peers" / "ott" / "bin" / "python"
    for python in filter(
        None, [given, str(made) if made.exists() else "", sys.executable]
    ):
        version = _answer(python, "import ott; print(ott.__version__)")
        if version is not None:
            return python, version
    return None, "OTT-JAX is not installed (experiments.benchmarks.setup_peers does it)"


def write(results: dict[str, Any], page: Path) -> None:
    """Write the numbers and the page of what there is so far."""
    page.parent.mkdir(parents=True, exist_ok=True)
    page.with_suffix(".json").write_text(json.dumps(results, indent=1))
    page.write_text(report.text(results))


def main() -> None:
    """Run all parts within the time, and write down what came of it."""
    chosen = parse()
    start = time.perf_counter()
    facts = _answer(
        sys.executable,
        "import json, jax; from experiments import record; print(json.dumps("
        "record.environment() | {'platform': jax.default_backend()}))",
    )
    if facts is None:
        sys.exit("JAX does not start")
    results: dict[str, Any] = {"environment": json.loads(facts), "parts": []}
    platform = results["environment"]["platform"]
    if platform == "cpu" and not chosen.rehearse:
        sys.exit("there is no accelerator here; --rehearse runs at toy size on a CPU")
    peer, about = ott_python(chosen.ott_python)
    results |= {"rehearsal": chosen.rehearse, "ott": about, "skipped": []}
    folder = chosen.output or (
        Path(tempfile.mkdtemp()) if chosen.rehearse else Path(__file__).parent
    )
    page = folder / f"results-{platform}.md"
    for part in PARTS:
        label = f"{part.name} ({part.who})"
        left = 60 * chosen.minutes - (time.perf_counter() - start)
        if chosen.only and part.name not in chosen.only:
            results["skipped"].append([label, "not asked for"])
        elif part.who == "theirs" and peer is None:
            results["skipped"].append([label, about])
        elif left < 5:
            results["skipped"].append([label, "no time was left"])
        else:
            python = peer if part.who == "theirs" else sys.executable
            assert python is not None
            limit = left if chosen.rehearse else min(part.seconds, left)
            results["parts"].append(run(part, python, limit, chosen.rehearse))
            took = results["parts"][-1]["seconds"]
            print(f"{label}: {took:.0f} s", flush=True)
        # After each part, since a borrowed machine may be taken back.
        results["seconds"] = time.perf_counter() - start
        write(results, page)
    print(f"wrote {page}")
    failed = report.failures(results, ours=True)
    if chosen.rehearse and failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
