"""The structure: imports run one way, everything public is documented, no leftovers."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys

import jaxsns

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(jaxsns.__file__).parent
ORDER = [
    "status",
    "numerics",
    "geometry.costs",
    "geometry.kernel",
    "geometry.dense",
    "geometry.stage",
    "geometry.grid_kernel",
    "geometry.grid",
    "geometry.grid_statistics",
    "geometry.point_cloud",
    "geometry",
    "problem",
    "checks",
    "inputs",
    "marginal",
    "dual",
    "linear",
    "linear.conjugate_gradient",
    "linear.lapack",
    "linear.cholesky",
    "linear.ell",
    "linear.lanes",
    "linear.matrix_root",
    "linear.riccati",
    "covariances",
    "gaussian_barycentre",
    "gaussian",
    "newton_system",
    "sparse_system",
    "implicit",
    "solvers",
    "solvers.iteration",
    "solvers.sinkhorn",
    "solvers.fixed",
    "solvers.symmetric",
    "solvers.bregman",
    "solvers.direction",
    "solvers.newton",
    "solvers.sns",
    "solvers.continuation",
    "solvers.unrolled",
    "solvers.lane_problems",
    "solvers.lockstep",
    "solvers.shared",
    "batching",
    "feasibility",
    "methods",
    "outcome",
    "together",
    "execute",
    "solution",
    "solver",
    "partial",
    "ragged",
    "divergence",
    "barycentre_system",
    "barycentre",
    "free_barycentre_system",
    "free_barycentre",
    "arguments",
    "rounding",
    "plan_access",
    "maps",
    "matching",
    "ordering",
    "sorting",
    "selecting",
    "layers",
    "",
]


def _path(module):
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                names.add(
                    full if full.removeprefix("jaxsns.") in ORDER else node.module
                )
    own = {name.removeprefix("jaxsns.") for name in names if name.startswith("jaxsns.")}
    return own & set(ORDER)


def test_the_list_is_complete():
    found = {
        ".".join(p.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__")
        for p in PACKAGE.rglob("*.py")
    }
    assert {name.rstrip(".") for name in found} == set(ORDER)


def test_modules_import_only_from_below():
    for position, module in enumerate(ORDER):
        later = _imported(_path(module)) & set(ORDER[position + 1 :])
        assert not later, f"{module} imports {sorted(later)}"


def test_no_private_jax_and_no_global_configuration():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "jax._src" not in text, path
        assert "config.update" not in text, path


def test_files_are_short():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 320, path


def test_every_public_name_is_documented():
    reference = (ROOT / "docs" / "reference.md").read_text()
    names = [n for n in vars(jaxsns) if not n.startswith("_")]
    modules = {n for n in names if inspect.ismodule(getattr(jaxsns, n))}
    for name in set(names) - modules:
        member = getattr(jaxsns, name)
        assert inspect.getdoc(member), name
        assert f"`{name}`" in reference, f"{name} is missing in docs/reference.md"


def test_readme_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True
        )
        assert done.returncode == 0, block + done.stderr


def test_names_no_machine():
    paths = re.compile(r"(?<![\w.])/(tmp|work|root|home)/")
    for folder in ("jaxsns", "tests", "experiments", "docs", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".json", ".sh"):
                assert not paths.search(path.read_text()), path
