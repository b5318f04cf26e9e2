"""The structure: imports run one way, everything public is documented, no leftovers."""

import ast
import functools
import inspect
import pathlib
import re
import sys
import tomllib

import pytest

import jaxsns

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(jaxsns.__file__).parent
# Floors, from the ground up; packages of one floor do not import each other.
FLOORS = [
    {"numerics", "status", "hints", "control"},
    {"geometry", "linear", "recording"},
    {"problem"},
    {"hessian"},
    {"streaming"},
    {"implicit", "solvers"},
    {"solution"},
    {"solver"},
    {"partial"},
    {"losses", "plans", "ragged", "gaussian", "barycentres"},
    {"outer"},
    {
        *("layers", "quadratic", "penalised", "exact", "sparse", "constrained"),
        "low_rank",
    },
    {"bijection"},
    {"diagnostics", "plot", "interop"},
]
FLOOR = {name: k for k, names in enumerate(FLOORS) for name in names}


def _imported(path):
    """Parts of the package that a file imports, at its head or in a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "jaxsns":
            names |= {f"jaxsns.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("jaxsns.")}


def _part(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def test_every_part_has_a_floor():
    assert {_part(p) for p in PACKAGE.rglob("*.py")} - {"__init__"} == set(FLOOR)


def test_imports_run_one_way():
    for path in PACKAGE.rglob("*.py"):
        part = _part(path)
        if part == "__init__":
            continue
        for other in _imported(path) - {part}:
            assert FLOOR[other] < FLOOR[part], f"{path} imports {other}"


def test_few_files_at_the_root():
    assert len([p for p in PACKAGE.iterdir() if p.suffix == ".py"]) <= 10


def test_no_private_jax_and_no_global_configuration():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "jax._src" not in text, path
        assert "config.update" not in text, path


def test_files_are_short():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the source distribution has no pages"
)
def test_every_public_name_is_documented():
    topics = sorted((ROOT / "docs" / "reference").glob("*.md"))
    text = "\n".join(path.read_text() for path in topics)
    pages = re.findall(r"^::: jaxsns\.(\S+)$", text, re.MULTILINE)
    assert len(pages) == len(set(pages))
    # Submodules become attributes too; public are those that __init__ names.
    modules = {"costs", "gaussian", "penalties", "plot", "ragged"}
    names = {n for n, x in vars(jaxsns).items() if not inspect.ismodule(x)} | modules
    names = {name for name in names if not name.startswith("_")}
    assert names == {name for name in pages if "." not in name}
    for name in pages:
        member = functools.reduce(getattr, name.split("."), jaxsns)
        # A union of types has none at run time.
        assert inspect.getdoc(member) or name == "geometry.CostLike", name
    drawn = {n for n, x in vars(jaxsns.plot).items() if inspect.isfunction(x)}
    assert {f"plot.{name}" for name in drawn} <= set(pages)


def test_names_no_machine():
    paths = re.compile(r"(?<![\w.])/(tmp|work|root|home)/")
    for folder in ("jaxsns", "tests", "experiments", "docs", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".json", ".sh"):
                assert not paths.search(path.read_text()), path


def test_tab_shows_what_is_public():
    public = {name for name in dir(jaxsns) if not name.startswith("__")}
    assert public == set(jaxsns.__all__)
    for path in PACKAGE.rglob("__init__.py"):
        assert "__all__" in path.read_text(), path


@pytest.mark.skipif(
    not (ROOT / "pyproject.toml").is_file(), reason="the archive has no requirements"
)
def test_what_is_imported_is_required_and_the_other_way_round():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = lambda text: re.match(r"[\w-]+", text).group()
    required = {name(x) for x in project["dependencies"]}
    extras = {name(x) for xs in project["optional-dependencies"].values() for x in xs}
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "jaxsns", "numpy"}  # NumPy comes with jax
    assert imported - extras <= required
    assert required - {"jaxlib"} <= imported


def _public(module, seen):
    """(name, function) of all that a module offers, and of its classes' methods."""
    for name in getattr(module, "__all__", ()):
        item = getattr(module, name)
        if inspect.ismodule(item):
            yield from _public(item, seen)
        elif inspect.isclass(item) and item not in seen:
            seen.add(item)
            for key, method in vars(item).items():
                if inspect.isfunction(method) and not key.startswith("_"):
                    yield f"{name}.{key}", method
        elif inspect.isroutine(item):
            yield name, inspect.unwrap(item)


def test_public_parameters_have_types():
    """No `Any`, but for options that are handed on and for what matplotlib draws on."""
    untyped = []
    for name, function in _public(jaxsns, set()):
        if function.__module__.startswith("jaxsns.plot"):
            continue
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD or key == "self":
                continue
            kind = parameter.annotation
            if kind is parameter.empty or "Any" in str(kind):
                untyped.append(f"{name}: {key}")
    assert not untyped
