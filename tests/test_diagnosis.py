"""`diagnose` names what was put into a problem, and nothing else; `check` raises it."""

import dataclasses
import importlib
import pathlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxsns
from jaxsns.diagnostics import diagnose as diagnosis
from jaxsns.diagnostics import symptoms

R = np.random.default_rng(0)
ROOT = pathlib.Path(__file__).parent.parent
INF = np.inf


def _names(*args, **kwargs):
    return jaxsns.diagnose(*args, **kwargs).names


def test_nothing_is_wrong_with_a_good_solve():
    solution = jaxsns.solve(R.random((12, 15)), epsilon=0.05)
    found = jaxsns.diagnose(solution)
    assert found.names == ()
    assert "nothing wrong" in str(found)
    assert _names(solution.problem) == ()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cost not finite", {"cost": np.full((3, 4), np.nan)}),
        ("epsilon not positive", {"epsilon": -1.0}),
        ("tolerance not positive", {"tolerance": 0.0}),
        ("bad mass", {"a": np.array([1.0, -0.1, 0.1])}),
        ("no mass", {"a": np.zeros(3), "b": np.full(4, 0.25)}),
        ("rho not positive", {"rho_a": -1.0}),
        ("masses differ", {"a": np.array([0.5, 0.25, 0.26]), "b": np.full(4, 0.25)}),
        ("infeasible", {"cost": np.array([[0, 1.0, 2, 3], [INF] * 4, [1.0, 2, 4, 3]])}),
        ("cost too large", {"cost": np.full((3, 4), 1e146)}),
        ("constant cost", {"cost": np.ones((3, 4))}),
        ("epsilon too large", {"epsilon": 50.0}),
        ("epsilon very small", {"epsilon": 3e-6}),
        ("costs far from zero", {"cost": 100 + np.arange(12.0).reshape(3, 4) / 12}),
    ],
)
def test_what_is_wrong_with_values(name, change):
    given = {"cost": np.arange(12.0).reshape(3, 4) % 5, "epsilon": 0.1} | change
    found = jaxsns.diagnose(given.pop("cost"), **given)
    assert found.names == (name,)
    assert found.findings[0].cure == diagnosis.CURES[name]


def test_numbers_in_the_words():
    a = np.array([0.5, 0.25, 0.26])
    words = str(jaxsns.diagnose(np.eye(3), a, np.full(3, 1 / 3), epsilon=0.1))
    assert "1.01" in words
    assert "9.9e-03" in words


def test_epsilon_too_small_for_the_dtype():
    cost = R.random((60, 60)).astype(np.float32)
    options = {"epsilon": np.float32(1e-4), "tolerance": np.float32(1e-6)}
    solution = jaxsns.solve(cost, **options)
    assert solution.status == jaxsns.Status.STALLED
    found = _names(solution, tolerance=1e-6)
    assert "epsilon too small for the dtype" in found
    assert "stalled" not in found  # one finding a cause
    beyond = dataclasses.replace(solution, error=jnp.float32(0.5))
    assert _names(beyond, tolerance=1e-6)[-1] == "stalled"  # rounding is not the cause
    assert "the tolerance is 1.0e-06" in str(jaxsns.diagnose(solution, tolerance=1e-6))
    solution = jaxsns.solve(cost, epsilon=np.float32(1e-4))
    counted = f"the default tolerance was raised to {float(solution.tolerance):.1e}"
    assert counted in " ".join(str(jaxsns.diagnose(solution)).split())
    # The estimate is that of the error: measured ratios lie between 0.35 and 1.6.
    numbers = diagnosis._numbers(solution.problem, 1e-6)[0]
    numbers = numbers._replace(f=np.asarray(solution.f), g=np.asarray(solution.g))
    estimate = symptoms.rounding_error(numbers)
    assert 0.1 < float(solution.error) / estimate < 2
    # An offset is named as the cause of it.
    assert set(_names(cost + 50, **options)) >= {
        "costs far from zero", "epsilon too small for the dtype",
    }  # fmt: skip
    assert "epsilon too small for the dtype" not in _names(
        cost.astype(np.float64), epsilon=1e-4, tolerance=1e-6
    )


def test_a_plan_in_blocks():
    x = np.arange(6.0)[:, None]
    solution = jaxsns.solve(jaxsns.PointCloud(x, x + 0.1), epsilon=0.02)
    found = jaxsns.diagnose(solution)
    assert found.names == ("ill-conditioned potentials",)
    assert "6 blocks" in found.findings[0].what


def test_a_plan_too_large_to_be_decomposed(monkeypatch):
    monkeypatch.setattr(symptoms, "LARGEST_DECOMPOSED", 5)
    x = np.arange(6.0)[:, None]
    solution = jaxsns.solve(jaxsns.PointCloud(x, x + 0.1), epsilon=0.02)
    found = jaxsns.diagnose(solution)
    assert found.names == ("ill-conditioned potentials",)
    assert "is nearly in separate blocks" in found.findings[0].what


def test_the_gap_is_that_of_sweeps():
    # Plain sweeps contract at sigma^2: measured on errors of successive solves.
    x = np.linspace(0, 1, 9)
    cost, epsilon = (x[:, None] - x[None, :] ** 2) ** 2, 0.05
    solution = jaxsns.solve(cost, epsilon=epsilon)
    found = symptoms.spectral_gap(np.asarray(solution.plan()))
    assert found is not None
    kernel, errors = np.exp(-cost / epsilon), []
    u, v = np.ones(9), np.ones(9)
    for _ in range(40):
        u = 1 / 9 / (kernel @ v)
        v = 1 / 9 / (kernel.T @ u)
        errors.append(np.abs(u * (kernel @ v) - 1 / 9).sum())
    np.testing.assert_allclose(errors[-1] / errors[-2], 1 - found[0], rtol=1e-4)
    assert found[1] == 1
    split = np.kron(np.eye(3), np.full((2, 2), 1 / 12))
    found = symptoms.spectral_gap(split)
    assert found is not None
    assert found[1] == 3


def test_infeasible_sets_are_found_by_their_potentials():
    cost = np.full((4, 4), INF)
    cost[:3, :2], cost[3] = 1.0, 0.0
    solution = jaxsns.solve(cost, epsilon=0.1)
    found = jaxsns.diagnose(solution)
    assert found.names == ("infeasible",)
    assert "3 row(s), 0, 1, 2, must send 0.75" in found.findings[0].what
    assert "can take 0.5" in found.findings[0].what


def test_step_limit_and_lanes():
    costs = np.stack([R.random((40, 33))] * 2)
    costs[1] *= 30

    def solve(cost):
        return jaxsns.solve(cost, epsilon=0.1, method="sinkhorn", max_steps=40)

    solution = jax.vmap(solve)(costs)
    found = jaxsns.diagnose(solution)
    assert found.names == ("step limit",)
    assert found.head.startswith("element (1,) of a batch (2,) (1 failed): MAX_STEPS")


def test_penalties_that_destroy_the_mass():
    cost = 5 + R.random((12, 15))
    solution = jaxsns.solve(cost, epsilon=0.1, rho_a=0.05, rho_b=0.05)
    assert "hardly any mass is moved" in _names(solution)


def test_large_clouds_are_looked_at_in_part(monkeypatch):
    x = np.linspace(0, 1, 40)[:, None]
    solution = jaxsns.solve(jaxsns.PointCloud(x, x), epsilon=5.0, max_steps=1)
    whole = jaxsns.diagnose(solution)
    monkeypatch.setattr(diagnosis, "LARGEST_SEEN", 400)
    part = jaxsns.diagnose(solution)
    assert whole.names[0] == part.names[0] == "epsilon too large"
    assert _names(solution.problem) == ("epsilon too large",)
    assert diagnosis._numbers(solution.problem, None)[0].cost.shape == (10, 40)


def test_relatives_and_refusals():
    x = R.random((12, 2))
    divergence = jaxsns.sinkhorn_divergence(x, x + 1, epsilon=0.5)
    assert jaxsns.diagnose(divergence).head.startswith("ab, aa, bb: CONVERGED")
    for dtype in (np.float64, np.float32):  # in which the virtual pair is rounded
        cost = R.random((11, 14)).astype(dtype)
        partial = jaxsns.solve_partial(cost, share=0.5, epsilon=0.05)
        assert _names(partial) == ()
    with pytest.raises(TypeError, match="has its own masses"):
        jaxsns.diagnose(divergence.ab, epsilon=1.0)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda c: jaxsns.diagnose(jaxsns.make_problem(c)).names)(x)


def test_all_answers_are_in_the_docs():
    page = (ROOT / "docs" / "statuses.md").read_text()
    for name in diagnosis.CURES:
        assert f"`{name}`" in page, name
    for status in jaxsns.Status:
        assert f"`{status.name}`" in page, status


def _value(cost, b):
    a = jnp.full((12,), 1 / 12)
    return jaxsns.check(jaxsns.solve(cost, a, b, epsilon=0.1)).value


def test_check_raises_the_text_of_the_status_under_jit():
    cost, b = jnp.asarray(R.random((12, 15))), jnp.full((15,), 1 / 15)
    checked = jax.jit(checkify.checkify(jax.value_and_grad(_value)))
    error, (value, _) = checked(cost, b)
    error.throw()
    np.testing.assert_allclose(value, jaxsns.solve(cost, epsilon=0.1).value)
    for bad, text in (((cost, b * 2), "MASS_MISMATCH"), ((cost, b - 1), "INVALID")):
        error, _ = checked(*bad)
        with pytest.raises(checkify.JaxRuntimeError, match=text):
            error.throw()
    lanes = jax.jit(jax.vmap(checkify.checkify(_value), in_axes=(0, None)))
    error, _ = lanes(jnp.stack([cost, cost * jnp.nan]), b)
    assert "at mapped index 1" in error.get()
    assert "NONFINITE" in error.get()


def test_check_outside_jit_and_of_a_divergence():
    x = R.random((12, 2))
    limited = jaxsns.sinkhorn_divergence(x, x + 1, epsilon=0.5)
    assert jaxsns.check(limited) is limited
    with pytest.raises(checkify.JaxRuntimeError, match="MAX_STEPS"):
        jaxsns.check(jaxsns.solve(R.random((12, 15)), epsilon=0.05, max_steps=1))
    with pytest.raises(TypeError, match="got ndarray"):
        jaxsns.check(x)


def _results():
    """All classes of the package that say how a computation went."""
    for module in pkgutil.walk_packages(jaxsns.__path__, "jaxsns."):
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and kind.__module__ == module.name:
                if hasattr(kind, "converged") and not kind.__name__.startswith("_"):
                    yield kind


def test_all_results_have_one_protocol():
    kinds = {kind.__name__: kind for kind in _results()}
    inner = {"CGResult", "JointResult"}  # of linear solvers and batches
    assert {"Solution", "ExactSolution", "SpaceBarycentre"} <= set(kinds)
    for name in set(kinds) - inner:
        fields = set(dir(kinds[name])) | set(kinds[name].__annotations__)
        assert {"status", "converged", "raise_if_failed"} <= fields, name


def test_check_takes_exact_transport():
    exact = jaxsns.solve_exact(R.random((5, 6)))
    assert jaxsns.check(exact) is exact
    bad = jax.jit(jaxsns.solve_exact)(jnp.full((2, 3), jnp.nan))
    with pytest.raises(checkify.JaxRuntimeError, match="NONFINITE"):
        jaxsns.check(bad)


def test_a_few_large_costs_that_make_the_scale():
    cost = np.random.default_rng(2).random((12, 15))
    big = cost.copy()
    big[3, 4] = big[7, 7] = 1e6
    solution = jaxsns.solve(big)
    assert _names(big) == _names(solution) == ("outliers make the scale",)
    assert "+inf" in jaxsns.diagnose(big).findings[0].cure
    assert _names(big, epsilon=0.1) == ()
    assert _names(np.where(big > 1, np.inf, cost)) == ()


def test_a_plan_that_is_a_product():
    x = np.random.default_rng(3).normal(size=(12, 2))
    solution = jaxsns.solve(jaxsns.PointCloud(x, x + 100), tolerance=1e-6)
    found = {f.name: f.what for f in jaxsns.diagnose(solution).findings}
    # The scale that is named is that of the products of both clouds.
    inner = -2 * (x - x.mean(0)) @ (x - x.mean(0)).T
    assert f"deviation of {inner.std():.3g}" in found["epsilon too large"]
    # Points are centred, so the distance between clouds takes no digits.
    assert _names(jaxsns.solve(jaxsns.PointCloud(x, x + 100), epsilon=0.5)) == ()


def test_an_offset_is_no_fault_of_penalised_marginals():
    cost = 100 + np.random.default_rng(4).random((5, 6))
    assert "costs far from zero" in _names(cost, epsilon=0.1)
    assert _names(cost, epsilon=0.1, rho_a=1.0) == ()


@pytest.mark.parametrize(
    "options", [{}, {"epsilon": 0.5}, {"epsilon": 0.5, "rho": 1.0}]
)
def test_a_divergence_names_the_cloud_once(options):
    x = np.random.default_rng(5).random((12, 2))
    bad = x.copy()
    bad[2] = np.nan
    run = jax.jit(lambda x, y: jaxsns.sinkhorn_divergence(x, y, **options))
    for given, name in (((bad, x), "x"), ((x, bad), "y")):
        found = jaxsns.diagnose(run(*given))
        assert found.names == ("cost not finite",)
        words = f"{name} has 2 entries that are NaN or infinite, the first at (2, 0)"
        assert found.findings[0].what == words
        assert "epsilon" not in str(found.findings)


def test_a_loss_names_its_own_arguments_and_the_lane():
    x = np.random.default_rng(6).random((3, 12, 2))
    bad = x.copy()
    bad[1, 4] = np.nan
    run = jax.jit(lambda x, y: jaxsns.transport_loss(x, y, return_solution=True)[1])
    for given, name in (((bad, x), "predictions"), ((x, bad), "targets")):
        divergence = run(*given)
        assert divergence.status[1] == jaxsns.Status.NONFINITE
        found = jaxsns.diagnose(divergence)
        assert found.names == ("cost not finite",)
        assert found.findings[0].what.startswith(f"{name} has 2 entries")
        head = "element (1,) of a batch (3,) (1 failed): ab, aa, bb: NONF"
        assert found.head.startswith(head)


def test_a_scale_of_bad_costs_does_not_spoil_the_others():
    cost = np.random.default_rng(7).random((5, 6))
    cost[2, 3] = np.nan
    run = jax.jit(lambda c: jaxsns.solve(c, epsilon=0.1, scale_cost="mean"))
    solution = run(cost)
    assert solution.status == jaxsns.Status.NONFINITE
    words = "cost has 1 entry that is NaN or infinite, the first at (2, 3)"
    assert jaxsns.diagnose(solution).findings[0].what == words


def test_no_mass_is_one_finding_though_the_other_side_follows_it():
    solution = jax.jit(lambda a: jaxsns.solve(np.eye(3), a))(np.zeros(3))
    found = jaxsns.diagnose(solution)
    assert found.names == ("no mass",)
    assert "a and b are 0" in found.findings[0].what


def test_masses_are_named_and_not_what_follows_from_them():
    a = np.array([0.5, np.nan, 0.5])
    words = jaxsns.diagnose(np.eye(3), a).findings
    assert [x.name for x in words] == ["bad mass"]
    assert words[0].what.startswith("a has 1 mass that is")


def test_the_tolerance_is_that_of_the_solve():
    cost = R.random((60, 60)).astype(np.float32)
    loose = jaxsns.solve(cost, epsilon=np.float32(1e-3), tolerance=np.float32(1e-2))
    assert loose.converged
    assert "epsilon too small for the dtype" not in jaxsns.diagnose(loose).names
    tight = jaxsns.solve(cost, epsilon=np.float32(0.05), tolerance=np.float32(1e-8))
    assert tight.status == jaxsns.Status.STALLED
    assert "the tolerance is 1.0e-08" in str(jaxsns.diagnose(tight))


def test_partial_findings_are_about_what_was_given():
    x, y = R.random((9, 2)), R.random((8, 2))

    @jax.jit
    def run(x, share):
        return jaxsns.solve_partial(jaxsns.PointCloud(x, y), epsilon=0.1, share=share)

    (finding,) = jaxsns.diagnose(run(np.where(x == x[0, 0], np.nan, x), 0.5)).findings
    assert finding.what.startswith("x has 1 entry")
    assert jaxsns.diagnose(run(x, 1.5)).names == ("share out of range",)
    assert jaxsns.diagnose(run(x, 0.5)).names == ()


@pytest.mark.parametrize("scale", ["std", "max", "mean", "median", "within"])
def test_a_scale_without_permitted_pairs_is_one(scale):
    nothing = np.full((3, 4), np.inf)
    options = {"epsilon": 0.1, "relative_to": scale}
    solution = jaxsns.solve(nothing, **options)
    assert solution.status == jaxsns.Status.INFEASIBLE
    assert float(solution.epsilon) == 0.1
    relaxed = jaxsns.solve(nothing, rho_a=1.0, rho_b=2.0, **options)
    np.testing.assert_allclose(relaxed.value, 3.0, rtol=1e-12)  # nothing is moved
