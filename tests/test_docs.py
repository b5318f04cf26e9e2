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
NEEDS = {
    "matplotlib": "matplotlib",
    "flatbuffers": ".serialize(",
    "flax": "from flax",
    "orbax": "import orbax",
}
# Compiling all of them takes two minutes of a core, and more with newer releases of
# jaxlib: CI runs them on the oldest Python, and on the others what is read first.
EVERYWHERE = {"README.md", "docs/index.md"}
OLDEST = sys.version_info[:2] == (3, 11)


@pytest.fixture(scope="module")
def results(request):
    """One process for all that are asked for: JAX starts once, programs are shared.

    With default settings, so in float32; of tests/conftest.py the environment alone.
    """
    items = [x for x in request.session.items if "results" in x.fixturenames]
    names = [item.callspec.params["name"] for item in items]
    done = subprocess.run(
        [sys.executable, pathlib.Path(pages.__file__)]
        + [name for name in names if _left_out(name) is None],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _left_out(name):
    """Why a page is not run, or None."""
    code = "".join(block.text for block in pages.blocks(pages.ROOT / name))
    for module, sign in NEEDS.items():
        if sign in code and importlib.util.find_spec(module) is None:
            return f"{module} is not installed"
    if not OLDEST and name not in EVERYWHERE:
        return "run on Python 3.11 only"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_page_runs_and_prints_what_it_says(name, results):
    if _left_out(name) is not None:
        pytest.skip(_left_out(name))
    assert results[name]["failed"] is None, results[name]["failed"]
    page = pages.ROOT / name
    for picture in results[name]["pictures"]:
        assert (page.parent / picture).exists(), f"run tests/pages.py --into for {name}"
        assert f"]({picture})" in page.read_text()


def test_pages_with_code_are_found():
    assert {"README.md", "docs/index.md", "docs/migration.md"} <= set(NAMES)


@pytest.mark.parametrize(
    ("printed", "after", "fails"),
    [
        ("cost 1.51, 20 steps", "```text\ncost 1.5, 20 steps\n```\n", False),
        ("cost 1.51, 20 steps", "```text\ncost 1.4, 20 steps\n```\n", True),
        ("cost 1.51, 20 steps", "```text\ncost 1.5, 20 sweeps\n```\n", True),
        ("cost 1.51", '```text title="within 10 %"\ncost 1.4\n```\n', False),
        ("cost 1.51", '```text title="within 10 %"\ncost 1.3\n```\n', True),
        ("error 3e-7", '```text title="numbers vary"\nerror 1.2e-05\n```\n', False),
        ("error nan", '```text title="numbers vary"\nerror 1.2e-05\n```\n', True),
        ("cost 1.51", "Prose first.\n\n```text\ncost 1.51\n```\n", True),
        ("cost 1.51", "", True),
        ("", "```text\ncost 1.51\n```\n", True),
    ],
)
def test_what_a_page_says_it_prints_is_compared(tmp_path, printed, after, fails):
    page = tmp_path / "page.md"
    code = f"print({printed!r})" if printed else "pass"
    page.write_text(f"# Title\n\n```python\n{code}\n```\n\n{after}")
    failed = pages.run(page)["failed"]
    assert (failed is not None) == fails
    assert failed is None or "page.md, line 4" in failed


def test_formulas_of_the_site_are_those_of_docstrings():
    spec = importlib.util.spec_from_file_location(
        "formulas", pages.ROOT / "docs" / "formulas.py"
    )
    formulas = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formulas)
    sources = " ".join(
        " ".join(path.read_text().split())
        for path in (pages.ROOT / "jaxsns").rglob("*.py")
    )
    known = [*formulas.DISPLAY, *formulas.INLINE]
    assert [plain for plain in known if plain not in sources] == []
