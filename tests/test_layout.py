"""The structure: imports run one way, everything public is documented, no leftovers."""

import ast
import functools
import inspect
import pathlib
import re

import pytest

import jaxsns
import jaxsns.ott

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = pathlib.Path(jaxsns.__file__).parent
ORDER = [
    "status",
    "history",
    "journal",
    "progress",
    "numerics",
    "geometry.costs",
    "geometry.kernel",
    "geometry.columns",
    "geometry.dense",
    "geometry.memory",
    "geometry.sharding",
    "geometry.blocks",
    "geometry.top_k",
    "geometry.streamed_kernel",
    "geometry.streamed",
    "geometry.flipped",
    "geometry.stage",
    "geometry.grid_kernel",
    "geometry.grid",
    "geometry.grid_statistics",
    "geometry.point_cloud",
    "geometry",
    "problem",
    "checks",
    "scales",
    "inputs",
    "marginal",
    "dual",
    "kernel_verdict",
    "linear",
    "linear.conjugate_gradient",
    "linear.lapack",
    "linear.cholesky",
    "linear.ell",
    "linear.anderson",
    "linear.lanes",
    "linear.matrix_root",
    "linear.riccati",
    "covariances",
    "gaussian_barycentre",
    "gaussian",
    "clusters",
    "arrangement",
    "near_kernel",
    "look",
    "newton_system",
    "mixed_precision",
    "sparse_system",
    "implicit_streamed",
    "implicit",
    "solvers",
    "solvers.iteration",
    "solvers.sinkhorn",
    "solvers.fixed",
    "solvers.symmetric",
    "solvers.bregman",
    "solvers.ways",
    "solvers.sparse_direction",
    "solvers.direction",
    "solvers.newton_options",
    "solvers.trials",
    "solvers.newton_steps",
    "solvers.newton_loop",
    "solvers.newton",
    "solvers.sns",
    "solvers.continuation",
    "solvers.streamed_sinkhorn",
    "solvers.model_step",
    "solvers.streamed_newton",
    "solvers.unrolled",
    "solvers.lane_problems",
    "solvers.lane_rounds",
    "solvers.lockstep",
    "solvers.momentum",
    "solvers.shared",
    "solvers.side_by_side",
    "batching",
    "feasibility",
    "methods",
    "outcome",
    "streaming",
    "sweeping",
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
    "exporting",
    "arguments",
    "rounding",
    "plan_access",
    "maps",
    "matching",
    "ordering",
    "sorting",
    "selecting",
    "layers",
    "symptoms",
    "diagnosis",
    "raising",
    "ott",
    "plot.canvas",
    "plot.plans",
    "plot.curves",
    "plot.steps",
    "plot",
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


@pytest.mark.skipif(
    not (ROOT / "docs").is_dir(), reason="the source distribution has no pages"
)
def test_every_public_name_is_documented():
    text = (ROOT / "docs" / "reference.md").read_text()
    pages = re.findall(r"^::: jaxsns\.(\S+)$", text, re.MULTILINE)
    assert len(pages) == len(set(pages))
    # Submodules become attributes too; public are those that __init__ names.
    modules = {"costs", "gaussian", "plot", "ragged"}
    names = {n for n, x in vars(jaxsns).items() if not inspect.ismodule(x)} | modules
    names = {name for name in names if not name.startswith("_")}
    assert names == {name for name in pages if "." not in name}
    for name in pages:
        member = functools.reduce(getattr, name.split("."), jaxsns)
        assert inspect.getdoc(member), name
    drawn = {n for n, x in vars(jaxsns.plot).items() if inspect.isfunction(x)}
    assert {f"plot.{name}" for name in drawn} <= set(pages)


def test_names_no_machine():
    paths = re.compile(r"(?<![\w.])/(tmp|work|root|home)/")
    for folder in ("jaxsns", "tests", "experiments", "docs", ".ci"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".json", ".sh"):
                assert not paths.search(path.read_text()), path
