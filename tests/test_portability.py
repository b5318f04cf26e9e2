"""What importing does, float64 off and on, pickles, saved arrays, exported programs."""

import ast
import functools
import importlib.util
import pathlib
import pickle

import fresh
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

PACKAGE = pathlib.Path(jaxsns.__file__).parent
HERE = str(PACKAGE.parent)
R = np.random.default_rng(0)

# Documented, so kept over releases by JAX' own rules; nothing else is imported.
PUBLIC_JAX = {
    "jax",
    "jax.core",  # Tracer
    "jax.extend.core",
    "jax.flatten_util",
    "jax.experimental.checkify",
    "jax.experimental.pallas",
    "jax.experimental.pallas.triton",  # CompilerParams
    "jax.experimental.sparse",  # BCOO
    "jax.export",
    "jax.numpy",
    "jax.sharding",
    "jax.typing",
}
PUBLIC_NAMES = {"jax.core": {"Tracer"}}
# Each takes as long to import as all of jaxsns; they wait until they are used.
HEAVY = ("optax", "chex", "scipy.sparse", "matplotlib", "flax", "ott", "pytest")


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                module = full if full in PUBLIC_JAX else node.module
                yield module, None if module == full else alias.name


def test_only_documented_modules_of_jax_are_imported():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for module, name in _imports(path):
            if module.split(".")[0] in ("jax", "jaxlib"):
                found.add(module)
                assert module in PUBLIC_JAX, f"{path} imports {module}"
                assert name is None or name in PUBLIC_NAMES.get(module, {name}), path
    assert found == PUBLIC_JAX  # the list above names nothing that is not used


@pytest.fixture(scope="module")
def importing():
    return fresh.run(
        f"""
        import json, sys
        import jax, jax.numpy
        before, known = dict(jax.config.values), set(sys.modules)
        import jaxsns
        after = dict(jax.config.values)
        print(json.dumps({{
            "changed": [k for k in after if after[k] != before.get(k, after)],
            "gone": sorted(set(before) - set(after)),
            "heavy": [name for name in {HEAVY!r} if name in sys.modules],
            "other": sorted({{name.split(".")[0] for name in set(sys.modules) - known}}
                            - {{"jax", "jaxsns"}} - sys.stdlib_module_names),
        }}))
        """,
        HERE,
    )


def test_importing_leaves_the_configuration_of_jax_alone(importing):
    assert importing["changed"] == []
    assert importing["gone"] == []


def test_importing_needs_nothing_but_jax(importing):
    # No clock: a loaded machine has none. docs/portability.md has what was measured.
    assert importing["heavy"] == []
    assert importing["other"] == []


def test_importing_starts_no_device():
    # So that a number of devices, a platform, a cluster can be chosen afterwards.
    out = fresh.run(
        """
        import jax, jaxsns
        jax.config.update("jax_num_cpu_devices", 3)  # refused once there are devices
        print(jax.device_count("cpu"))
        """,
        HERE,
    )
    assert out == 3


@pytest.mark.parametrize("x64", ["0", "1"])
def test_solves_in_both_precisions(x64):
    out = fresh.run(
        """
        import json
        import jax, jax.numpy as jnp, numpy as np
        import jaxsns
        cost = jnp.asarray(np.random.default_rng(0).random((8, 9)))
        def value(cost):
            s = jaxsns.solve(cost, epsilon=0.05, method="sinkhorn")
            return s.value, s
        g, s = jax.jit(jax.grad(value, has_aux=True))(cost)
        rows, columns = s.marginals()
        print(json.dumps({
            "dtypes": sorted({str(v.dtype) for v in (s.f, s.g, s.error, s.value, g)}),
            "converged": bool(s.converged),
            "off": float(abs(rows - 1 / 8).sum() + abs(columns - 1 / 9).sum()),
            "gradient": float(abs(g - s.plan()).max()),
        }))
        """,
        HERE,
        JAX_ENABLE_X64=x64,
    )
    assert out["dtypes"] == ["float64" if x64 == "1" else "float32"]
    assert out["converged"]
    assert out["off"] <= (1e-10 if x64 == "1" else 2e-5)
    # The derivative of the value in the costs is the plan.
    assert out["gradient"] <= (1e-12 if x64 == "1" else 1e-6)


def _square(u, v):  # at the top of a module, so that it has a name to be pickled by
    return jnp.sum((u - v) ** 2)


X, Y = R.random((5, 2)), R.random((6, 2))
COST = ((X[:, None] - Y) ** 2).sum(-1)
CLOUDS = {
    "named": jaxsns.PointCloud(X, Y),
    "pnorm": jaxsns.PointCloud(X, Y, jaxsns.costs.pnorm(1.5), jnp.asarray(2.0)),
    "of the module": jaxsns.PointCloud(X, Y, jaxsns.costs.euclidean),
    "own": jaxsns.PointCloud(X, Y, _square, streamed=True, block=4),
    "grid": jaxsns.Grid((X[:, 0], Y[:, 1]), cost=2.5),
    "dense": jaxsns.Dense(jnp.asarray(COST)),
}


def _same(one, other):
    assert type(one) is type(other)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for p, q in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert jnp.asarray(p).dtype == jnp.asarray(q).dtype
        np.testing.assert_array_equal(p, q)


@pytest.mark.parametrize("name", CLOUDS)
def test_geometries_and_problems_pickle(name):
    geometry = CLOUDS[name]
    _same(pickle.loads(pickle.dumps(geometry)), geometry)
    problem = jaxsns.make_problem(geometry, epsilon=0.1, rho_a=1.0)
    _same(pickle.loads(pickle.dumps(problem)), problem)


def test_results_and_options_pickle():
    options = [
        jaxsns.NewtonOptions(tolerance=1e-9),
        jaxsns.SinkhornOptions(max_steps=7),
        jaxsns.SNSOptions(),
    ]
    results = [
        jaxsns.solve(jaxsns.PointCloud(X, Y), epsilon=0.2),
        jaxsns.sinkhorn_divergence(X, Y, epsilon=0.2),
        jaxsns.Status.STALLED,
    ]
    results.append(jaxsns.diagnose(results[0]))
    for thing in options + results[:3]:
        _same(pickle.loads(pickle.dumps(thing)), thing)
    again = pickle.loads(pickle.dumps(results[3]))
    assert str(again) == str(results[3])


def test_saved_potentials_resume_a_solve(tmp_path):
    cost = jnp.asarray(R.random((20, 25)))
    a, b = jnp.full(20, 1 / 20), jnp.full(25, 1 / 25)
    solve = functools.partial(jaxsns.solve, cost, a, b, epsilon=0.02, method="sinkhorn")
    first = solve(tolerance=1e-4)
    np.savez(tmp_path / "potentials.npz", f=first.f, g=first.g)
    with np.load(tmp_path / "potentials.npz") as saved:
        init = saved["f"], saved["g"]
    cold, warm = solve(tolerance=1e-10), solve(tolerance=1e-10, init=init)
    np.testing.assert_allclose(warm.f, cold.f, atol=1e-8)
    assert int(warm.counts.sweeps) < int(cold.counts.sweeps)


def _layer(x, y, epsilon):
    solution = jaxsns.solve(jaxsns.PointCloud(x, y), epsilon=epsilon)
    return solution.value, solution.f, solution.g, solution.status


needs_flatbuffers = pytest.mark.skipif(
    importlib.util.find_spec("flatbuffers") is None,
    reason="jax.export serialises through flatbuffers",
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    arguments = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(0.1)
    program = jax.export.export(jax.jit(_layer))(*arguments)
    (folder / "layer.bin").write_bytes(program.serialize(vjp_order=1))
    np.savez(folder / "arguments.npz", x=X, y=Y)
    return folder


@needs_flatbuffers
def test_an_exported_solve_runs_where_there_is_no_jaxsns(exported):
    out = fresh.run(
        f"""
        import json, pathlib, sys
        import jax, jax.numpy as jnp, numpy as np
        folder = pathlib.Path({str(exported)!r})
        program = jax.export.deserialize((folder / "layer.bin").read_bytes())
        saved = np.load(folder / "arguments.npz")
        arguments = jnp.asarray(saved["x"]), jnp.asarray(saved["y"]), jnp.asarray(0.1)
        def loss(*arguments):
            called = program.call(*arguments)
            value, f, g, _ = called
            return value + jnp.sum(f**2) + jnp.sum(g**3), called
        both = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
        gradients, called = both(*arguments)
        out = dict(zip(("value", "f", "g", "status"), called))
        out |= dict(zip(("x", "y", "epsilon"), gradients))
        np.savez(folder / "out.npz", **out)
        print(json.dumps("jaxsns" in sys.modules))
        """,
        JAX_ENABLE_X64="1",
    )
    assert out is False
    arguments = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(0.1)
    got = np.load(exported / "out.npz")

    def loss(*arguments):
        called = _layer(*arguments)
        value, f, g, _ = called
        return value + jnp.sum(f**2) + jnp.sum(g**3), called

    both = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    gradients, called = both(*arguments)
    for name, expected in zip(("value", "f", "g", "status"), called, strict=True):
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-12)
    for name, expected in zip(("x", "y", "epsilon"), gradients, strict=True):
        np.testing.assert_allclose(got[name], expected, rtol=1e-9, atol=1e-11)


@needs_flatbuffers
def test_whole_solutions_pass_through_export():
    jaxsns.register_for_export()
    jaxsns.register_for_export()  # again does nothing

    def solve(cloud):
        return jaxsns.solve(cloud, epsilon=0.1, method="sinkhorn")

    for name in ("named", "pnorm"):
        cloud = jax.tree.map(jnp.asarray, CLOUDS[name])
        program = jax.export.export(jax.jit(solve))(cloud)
        again = jax.export.deserialize(program.serialize())
        got, expected = again.call(cloud), jax.jit(solve)(cloud)
        _same(got, expected)
    own = jax.tree.map(jnp.asarray, CLOUDS["own"])
    program = jax.export.export(jax.jit(lambda cloud: cloud.x))(own)
    with pytest.raises(TypeError, match="must have a name"):
        program.serialize()
