"""Numbers in the code lead to records of why they are what they are, and back."""

import ast
import pathlib
import re

import pytest

import jaxsns

ROOT = pathlib.Path(__file__).parent.parent
RECORDS = ROOT / "docs" / "decisions"
PACKAGE = pathlib.Path(jaxsns.__file__).parent
TAG = re.compile(r"\[(D\d\d)\]")
ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \| `([a-z0-9_/.]+)` \|.*\[(D\d\d)\]", re.M)
HEADINGS = ["Context", "Decision", "What decided", "Measure again"]

pytestmark = pytest.mark.skipif(
    not RECORDS.is_dir(), reason="the source distribution has no pages"
)


def _files():
    return {str(p.relative_to(PACKAGE)): p.read_text() for p in PACKAGE.rglob("*.py")}


def _known():
    return {p.stem: p.read_text() for p in RECORDS.glob("D*.md")}


def _index():
    return (RECORDS / "index.md").read_text()


def _is_number(node):
    if isinstance(node, ast.Tuple):
        return bool(node.elts) and all(map(_is_number, node.elts))
    if isinstance(node, ast.BinOp):  # of numbers and of names of numbers
        return all(
            isinstance(x, ast.Name) or _is_number(x) for x in (node.left, node.right)
        )
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _constants(text):
    """Names of numbers at the head of a module, with the lines that may have tags."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.Assign) or not _is_number(node.value):
            continue
        target = node.targets[0]
        first = node.lineno - 1
        while lines[first - 1].startswith("#"):
            first -= 1
        near = "\n".join(lines[first : node.end_lineno])
        for name in getattr(target, "elts", [target]):
            if re.fullmatch("[A-Z][A-Z0-9_]*", name.id):
                yield name.id, near


def test_every_tag_has_a_record():
    for path, text in _files().items():
        for tag in TAG.findall(text):
            assert tag in _known(), f"{path} refers to {tag}"


def test_every_record_is_referred_to():
    used = {tag for text in _files().values() for tag in TAG.findall(text)}
    assert set(_known()) - used == set()


def test_records_have_the_same_headings_and_stand_in_the_index():
    index = _index()
    for name, text in _known().items():
        assert text.startswith(f"# {name}: ")
        assert re.findall("^## (.*)$", text, re.M) == HEADINGS, name
        assert f"[{name}]({name}.md)" in index


def test_every_number_at_the_head_of_a_module_is_in_the_table():
    table = {(path, name): tag for name, path, tag in ROW.findall(_index())}
    found = set()
    for path, text in _files().items():
        for name, near in _constants(text):
            assert (path, name) in table, f"{path}: {name} is not in the index"
            assert f"[{table[path, name]}]" in near, f"{path}: {name} has no tag"
            found.add((path, name))
    assert set(table) == found
