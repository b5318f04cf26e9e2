"""Both sides of docs/migration.md give the same numbers, where peers are installed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pages
import pytest

PAGE = pages.ROOT / "docs" / "migration.md"


def test_every_snippet_of_theirs_has_one_of_ours():
    sections = {}
    for block in pages.blocks(PAGE):
        sections.setdefault(block.section, []).append(block.title)
    pairs = {name: titles for name, titles in sections.items() if titles != [""]}
    assert len(pairs) == 10
    for name, titles in pairs.items():
        assert titles in (["OTT-JAX", "jaxsns"], ["POT", "jaxsns"]), name


@pytest.mark.parametrize(("peer", "module"), [("OTT-JAX", "ott"), ("POT", "ot")])
def test_the_numbers_agree(peer, module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{peer} is not installed")
    done = subprocess.run(
        [sys.executable, pathlib.Path(pages.__file__), "docs/migration.md",
         "--peers", peer],
        capture_output=True, text=True, env=os.environ | {"JAX_ENABLE_X64": "1"},
        check=True,
    )  # fmt: skip
    out = json.loads(done.stdout.splitlines()[-1])["docs/migration.md"]
    assert out["failed"] is None, out["failed"]
    assert len(out["gaps"]) == (7 if module == "ott" else 3)
    # Measured: at most 5e-11, of numbers up to about 1.
    for section, gap in out["gaps"].items():
        assert gap is not None, section
        assert gap < 1e-9, section
