"""The Python blocks of the README and of all pages run, as a reader would run them."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pages
import pytest

NAMES = [
    str(path.relative_to(pages.ROOT))
    for path in pages.paths()
    if any(pages.blocks(path))
]
NEEDS = {"docs/pictures.md": "matplotlib", "docs/portability.md": "flatbuffers"}
# Compiling all of them takes 30 s of a core, and 50 s with newer releases of jaxlib: CI
# runs them on the oldest Python, and on the others what is read first.
EVERYWHERE = {"README.md", "docs/index.md"}
OLDEST = sys.version_info[:2] == (3, 11)


@pytest.fixture(scope="module")
def results():
    """One process for all: JAX starts once, and programs are shared.

    With default settings, so in float32; nothing of tests/conftest.py but XLA_FLAGS.
    """
    done = subprocess.run(
        [sys.executable, pathlib.Path(pages.__file__)]
        + [name for name in NAMES if _left_out(name) is None],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _left_out(name):
    """Why a page is not run, or None."""
    module = NEEDS.get(name)
    if module is not None and importlib.util.find_spec(module) is None:
        return f"{module} is not installed"
    if not OLDEST and name not in EVERYWHERE:
        return "run on Python 3.11 only"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_page_runs(name, results):
    if _left_out(name) is not None:
        pytest.skip(_left_out(name))
    assert results[name]["failed"] is None, results[name]["failed"]


def test_pages_with_code_are_found():
    assert {"README.md", "docs/index.md", "docs/migration.md"} <= set(NAMES)
