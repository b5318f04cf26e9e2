"""What a solution answers, its gauge, and how it prints."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns.problem import dual, gauge


def _solved(name="uneven", **kw):
    cost, a, b = problems.ALL[name]()
    kw = dict(epsilon=0.05 * cost.std(), tolerance=1e-12) | kw
    return cost, a, b, jaxsns.solve(cost, a, b, **kw)


@pytest.mark.parametrize("name", ["uneven", "tall", "zero_masses", "one_row"])
def test_values_are_what_they_say(name):
    cost, a, b, s = _solved(name)
    epsilon = float(s.epsilon)
    plan = references.plan(cost, np.asarray(s.f), np.asarray(s.g), epsilon)
    np.testing.assert_allclose(s.plan(), plan, atol=1e-14)
    log = np.log(np.where(plan > 0, plan, 1))
    regularised = (plan * cost).sum() + epsilon * (plan * (log - 1)).sum()
    np.testing.assert_allclose(s.value, regularised, rtol=1e-10)
    np.testing.assert_allclose(s.primal_value, regularised, rtol=1e-12)
    np.testing.assert_allclose(s.transport_cost, (plan * cost).sum(), rtol=1e-12)
    np.testing.assert_allclose(s.gap, 0, atol=1e-10)
    rows, columns = s.marginals()
    np.testing.assert_allclose(rows, plan.sum(1), atol=1e-14)
    np.testing.assert_allclose(columns, plan.sum(0), atol=1e-14)
    np.testing.assert_allclose(sum(s.marginal_errors), s.error, atol=1e-14)
    v = np.random.default_rng(0).normal(size=(b.size, 3))
    np.testing.assert_allclose(s.apply(v), plan @ v, atol=1e-13)
    np.testing.assert_allclose(s.apply(v[:, 0]), plan @ v[:, 0], atol=1e-13)
    real = a > 0
    expected = (plan @ v)[real] / plan.sum(1)[real, None]
    np.testing.assert_allclose(s.barycentric(v)[real], expected, atol=1e-10)
    np.testing.assert_allclose(s.barycentric(v)[~real], 0)
    u = np.random.default_rng(1).normal(size=a.size)
    np.testing.assert_allclose(s.apply(u, axis=0), u @ plan, atol=1e-13)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn", "sns"])
@pytest.mark.parametrize("name", ["uneven", "tall", "zero_masses"])
def test_gauge(name, method):
    cost, a, b, s = _solved(name, method=method)
    f, g = np.asarray(s.f), np.asarray(s.g)
    left, right = f[a > 0] @ a[a > 0], g[b > 0] @ b[b > 0]
    np.testing.assert_allclose(left, right, atol=1e-12 * max(1, abs(left)))


def test_transposition_exchanges_the_potentials():
    cost, a, b, s = _solved()
    t = jaxsns.solve(cost.T, b, a, epsilon=s.epsilon, tolerance=1e-12)
    np.testing.assert_allclose(t.f, s.g, atol=1e-10)
    np.testing.assert_allclose(t.g, s.f, atol=1e-10)


@pytest.mark.parametrize("name", ["uneven", "tall"])
def test_gradients_of_gauge_dependent_losses_follow_the_gauge(name):
    cost, a, b, s = _solved(name)
    epsilon = s.epsilon

    @jax.jit
    @jax.value_and_grad
    def loss(cost):
        return jnp.sum(jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-13).f)

    direction = np.random.default_rng(0).normal(size=cost.shape)
    h = 1e-5
    ends = [loss(cost + s * h * direction)[0] for s in (1, -1)]
    reference = (ends[0] - ends[1]) / (2 * h)
    slope = loss(cost)[1]
    got = jnp.vdot(slope, jnp.asarray(direction))
    np.testing.assert_allclose(got, reference, rtol=1e-6)
    # Adding t to all costs adds t / 2 to every potential in this gauge.
    np.testing.assert_allclose(jnp.sum(slope), a.size / 2)


def test_c_transform_and_centre():
    cost, a, b, s = _solved()
    np.testing.assert_allclose(dual.column_update(s.problem, s.f), s.g, atol=1e-10)
    f, g = gauge.centre(s.problem, s.f + 3, s.g - 3)
    np.testing.assert_allclose(f, s.f, atol=1e-12)
    np.testing.assert_allclose(g, s.g, atol=1e-12)


def test_prints_a_readable_summary():
    text = repr(_solved(method="newton")[3])
    assert "Solution(24 x 37, float64, method='newton', epsilon=" in text
    assert "CONVERGED: the marginal error is at most the tolerance" in text
    assert "Newton steps" in text
    assert max(len(line) for line in text.splitlines()) <= 88
    traced = []
    jax.jit(lambda c: traced.append(repr(jaxsns.solve(c, epsilon=1.0))) or c)(
        jnp.ones((2, 3))
    )
    assert traced == ["Solution(2 x 3, float64, method='auto', traced)"]


def test_solution_is_a_pytree_and_pickles():
    cost, a, b, s = _solved()
    again = jax.tree.map(lambda x: x, s)
    np.testing.assert_array_equal(again.f, s.f)
    copy = pickle.loads(pickle.dumps(s))
    np.testing.assert_array_equal(copy.plan(), s.plan())
    inside = jax.jit(lambda c: jaxsns.solve(c, a, b, epsilon=s.epsilon))(cost)
    np.testing.assert_allclose(inside.value, s.value, rtol=1e-9)


def test_unconverged_value_is_a_lower_bound():
    cost, a, b, s = _solved()
    for steps in (1, 2, 4, 8):
        rough = jaxsns.solve(cost, a, b, epsilon=s.epsilon, max_steps=steps)
        assert float(rough.value) <= float(s.value) + 1e-12


def test_printing_makes_no_pass_and_no_arrays(monkeypatch):
    cost, _, _, s = _solved()
    x = np.linspace(0, 1, 4)[:, None]
    divergence = jaxsns.sinkhorn_divergence(x, x + 1, epsilon=0.5)
    for name in ("plan", "marginals", "value"):
        monkeypatch.setattr(dual, name, lambda *_: 1 / 0)
    n, m = cost.shape
    assert repr(s).startswith(f"Solution({n} x {m}, float64, method='auto'")
    assert f"marginal error {float(s.error):.2e}" in repr(s)
    assert s._repr_html_().count("<tr>") == 4
    assert "CONVERGED" in s._repr_html_()
    assert repr(divergence).splitlines()[0].endswith("CONVERGED)")
    assert divergence._repr_html_().count("<tr>") == 4
    for thing, words in (
        (s.problem, f"a=float64[{n}], b=float64[{m}], epsilon="),
        (s.problem.geometry, f"Dense(cost=float64[{n}, {m}])"),
        (jaxsns.PointCloud(x, x), "PointCloud(x=float64[4, 1], y=float64[4, 1], cost"),
        (s.counts, "Counts(sweeps="),
        (jaxsns.largest_entries(s, 2), f"left_out=float64[{n}]"),
    ):
        assert words in repr(thing)
        assert "\n" not in repr(thing)


def test_a_divergence_names_what_failed_and_what_others_call_its_parts():
    x = np.linspace(0, 1, 4)[:, None]
    bad = np.where(x > 0.9, np.nan, x)
    divergence = jax.jit(jaxsns.sinkhorn_divergence)(bad, x)
    assert repr(divergence).startswith("Divergence(value=nan, NONFINITE in ab, aa, bb)")
    with pytest.raises(jaxsns.NotConvergedError, match="ab, transport of a to b"):
        divergence.raise_if_failed()
    for name, words in (
        ("matrix", r"use ab\.plan\(\)"),
        ("plan", r"ab\.plan"),
        ("error", r"ab\.error"),
    ):
        with pytest.raises(AttributeError, match=words):
            getattr(divergence, name)
    with pytest.raises(AttributeError, match=r"use dense\(\)\.cost"):
        _ = jaxsns.PointCloud(x, x).cost_matrix
