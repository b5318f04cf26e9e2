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
NEEDS = {"docs/pictures.md": "matplotlib"}


@pytest.fixture(scope="module")
def results():
    """One process for all: JAX starts once, and programs are shared.

    With default settings, so in float32; nothing of tests/conftest.py but XLA_FLAGS.
    """
    done = subprocess.run(
        [sys.executable, pathlib.Path(pages.__file__), *filter(_possible, NAMES)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _possible(name):
    module = NEEDS.get(name)
    return module is None or importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("name", NAMES)
def test_page_runs(name, results):
    if not _possible(name):
        pytest.skip(f"{NEEDS[name]} is not installed")
    assert results[name]["failed"] is None, results[name]["failed"]


def test_pages_with_code_are_found():
    assert {"README.md", "docs/index.md", "docs/migration.md"} <= set(NAMES)
