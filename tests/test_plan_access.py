"""Largest entries, matches and sampled pairs against the dense plan."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

import jaxsns
from jaxsns.plans import entries as plan_access

EPSILON = 0.3


def _cloud(n=24, m=37, seed=0, d=3):
    r = np.random.default_rng(seed)
    a, b = r.random(n) + 0.1, r.random(m) + 0.1
    a[[2, 9]], b[5] = 0, 0
    geometry = jaxsns.PointCloud(r.normal(size=(n, d)), r.normal(size=(m, d)))
    return geometry, a / a.sum(), b / b.sum()


@functools.cache
def _solved(kind):
    geometry, a, b = _cloud()
    if kind == "cloud":
        return jaxsns.solve(geometry, a, b, epsilon=EPSILON)
    solution = _solved("cloud")
    return dataclasses.replace(solution, problem=solution.problem.dense(), reduced=None)


def _forget():
    for name in ("_largest", "_argmax", "_sample"):
        getattr(plan_access, name).clear_cache()


@pytest.fixture(params=["cloud", "dense", "blocks"])
def solution(request, monkeypatch):
    if request.param == "blocks":
        monkeypatch.setattr(plan_access, "BLOCK", 37 * 5)
        _forget()
    yield _solved("dense" if request.param == "dense" else "cloud")
    if request.param == "blocks":
        monkeypatch.undo()
        _forget()


def test_largest_entries(solution):
    plan = np.asarray(solution.plan())
    for axis in (0, 1):
        k = 4
        matrix, left_out = jaxsns.largest_entries(solution, k, axis=axis)
        assert matrix.shape == plan.shape
        assert matrix.nse == k * plan.shape[1 - axis]
        least = np.sort(plan, axis=axis).take([-k], axis=axis)
        expected = np.where(plan >= least, plan, 0)
        real = (plan.sum(1) > 0)[:, None] & (plan.sum(0) > 0)[None]
        np.testing.assert_allclose(
            np.where(real, matrix.todense(), 0), expected, rtol=1e-12
        )
        rest = plan.sum(axis) - expected.sum(axis)
        np.testing.assert_allclose(left_out, rest, rtol=0, atol=1e-16)
    whole, left_out = jaxsns.largest_entries(solution, 37)
    np.testing.assert_allclose(whole.todense(), plan, rtol=1e-12)
    np.testing.assert_allclose(left_out, 0, rtol=0, atol=1e-16)


def test_largest_entries_multiply_and_differentiate():
    geometry, a, b = _cloud()
    cost = geometry.dense().cost
    v = np.random.default_rng(1).normal(size=b.size)

    @jax.jit
    @jax.value_and_grad
    def loss(cost):
        solution = jaxsns.solve(
            cost, a, b, epsilon=EPSILON, tolerance=1e-13, method="sinkhorn"
        )
        return jnp.sum((jaxsns.largest_entries(solution, 5).matrix @ v) ** 2)

    direction = np.random.default_rng(2).normal(size=cost.shape)
    h = 1e-5
    up, down = (loss(cost + t * direction)[0] for t in (h, -h))
    reference = (up - down) / (2 * h)
    got = jnp.vdot(loss(cost)[1], direction)
    np.testing.assert_allclose(got, reference, rtol=1e-7)


def test_argmax_matching(solution):
    plan = np.asarray(solution.plan())
    for axis in (0, 1):
        expected = np.where(plan.sum(axis) > 0, plan.argmax(axis), -1)
        got = jaxsns.argmax_matching(solution, axis=axis)
        assert got.dtype == jnp.int32
        np.testing.assert_array_equal(got, expected)


def test_sampled_pairs_follow_the_plan(solution):
    size = 20_000
    plan = np.asarray(solution.plan())
    i, j = jaxsns.sample_pairs(solution, jax.random.key(0), size)
    assert i.shape == j.shape == (size,)
    assert i.dtype == j.dtype == jnp.int32
    counts = np.zeros(plan.shape)
    np.add.at(counts, (np.asarray(i), np.asarray(j)), 1)
    assert (counts[plan == 0] == 0).all()
    # Pearson's statistic, entries with less than five expected draws taken together.
    expected = size * plan / plan.sum()
    large = expected >= 5
    seen = np.append(counts[large], counts[~large].sum())
    wanted = np.append(expected[large], expected[~large].sum())
    statistic = ((seen - wanted) ** 2 / wanted).sum()
    assert chi2.sf(statistic, wanted.size - 1) > 1e-3
    rest = ((counts.sum(1) - expected.sum(1))[plan.sum(1) > 0] ** 2).sum()
    assert rest < 4 * size


def test_pairs_follow_a_plan_that_misses_its_marginals():
    solution = _solved("cloud")
    noise = np.random.default_rng(0).normal(size=solution.f.shape)
    rough = dataclasses.replace(
        solution, f=solution.f + 0.2 * EPSILON * noise, reduced=None
    )
    real = np.asarray(solution.problem.a) > 0
    a = np.asarray(solution.problem.a)
    rows = np.asarray(rough.marginals()[0])
    size = 20_000
    for name, expected in (("plan", rows / rows.sum()), ("a", a)):
        i, _ = jaxsns.sample_pairs(rough, jax.random.key(1), size, rows=name)
        share = np.bincount(i, minlength=a.size) / size
        statistic = size * ((share - expected)[real] ** 2 / expected[real]).sum()
        assert chi2.sf(statistic, real.sum() - 1) > 1e-3
        wrong = a if name == "plan" else rows / rows.sum()
        statistic = size * ((share - wrong)[real] ** 2 / wrong[real]).sum()
        assert chi2.sf(statistic, real.sum() - 1) < 1e-6


def test_keys_are_used_well():
    solution = _solved("cloud")
    first = jaxsns.sample_pairs(solution, jax.random.key(0), 64)
    again = jaxsns.sample_pairs(solution, jax.random.key(0), 64)
    other = jaxsns.sample_pairs(solution, jax.random.key(1), 64)
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()


def _temporary(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory():
    n, m = 1500, 2000
    sizes = {24: n, 37: m}
    larger = lambda x: jax.ShapeDtypeStruct([sizes.get(s, s) for s in x.shape], x.dtype)
    solution = jax.tree.map(larger, _solved("cloud"))
    plan = 8 * n * m
    v = np.zeros((m, 50))
    assert _temporary(lambda s, v: s.apply(v), solution, v) < 3 * plan
    small = _temporary(lambda s: jaxsns.largest_entries(s, 5), solution)
    assert small < 3 * 8 * plan_access.BLOCK
    pairs = lambda s, key: jaxsns.sample_pairs(s, key, 100)
    used = _temporary(pairs, solution, jax.random.key(0))
    assert used < 2 * 8 * plan_access.BLOCK
    pairs = lambda s, key: jaxsns.sample_pairs(s, key, 100, rows="a")
    assert _temporary(pairs, solution, jax.random.key(0)) < 4 * 8 * 100 * m


def test_no_answer_stays_no_answer():
    _, a, b = _cloud()
    solution = _solved("cloud")
    nan = dict(f=solution.f * np.nan, g=solution.g * np.nan)
    for bad_a, bad_b in ((-a, b), (a, b * np.nan), (a * np.nan, b), (a, 2 * b)):
        masses = dict(a=jnp.asarray(bad_a), b=jnp.asarray(bad_b))
        problem = dataclasses.replace(solution.problem, **masses)
        failed = dataclasses.replace(solution, problem=problem, reduced=None, **nan)
        matrix, left_out = jaxsns.largest_entries(failed, 4)
        assert np.isnan(matrix.data).all()
        assert np.isnan(left_out).all()
        assert (np.asarray(jaxsns.argmax_matching(failed)) == -1).all()
        pairs = jaxsns.sample_pairs(failed, jax.random.key(0), 64)
        assert (np.asarray(pairs) == -1).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda s: jaxsns.largest_entries(s, 0), ValueError, "k must be from 1 to 37"),
        (lambda s: jaxsns.largest_entries(s, 38), ValueError, "k must be from 1 to 37"),
        (lambda s: jaxsns.largest_entries(s, 2.0), TypeError, "k must be a Python"),
        (lambda s: jaxsns.largest_entries(s, 2, axis=2), ValueError, "axis must be"),
        (lambda s: jaxsns.argmax_matching(s.f), TypeError, "solution must be a"),
        (
            lambda s: jaxsns.sample_pairs(s, jax.random.key(0), 3, rows="b"),
            ValueError,
            "rows must be 'plan' or 'a'",
        ),
        (
            lambda s: jaxsns.sample_pairs(s, jax.random.key(0), 0),
            ValueError,
            "size must be at least 1",
        ),
    ],
)
def test_bad_arguments_raise_with_their_name(call, error, words):
    with pytest.raises(error, match=words):
        call(_solved("cloud"))


def test_lanes_are_refused_and_vmap_works():
    solution = _solved("cloud")
    lanes = jax.tree.map(lambda x: jnp.stack([x, x]), solution)
    with pytest.raises(ValueError, match="solution must be of one problem"):
        jaxsns.argmax_matching(lanes)
    got = jax.vmap(jaxsns.argmax_matching)(lanes)
    expected = jaxsns.argmax_matching(solution)
    np.testing.assert_array_equal(got, [expected, expected])


@pytest.mark.parametrize("options", [{}, {"rho_b": 1.0}])
@pytest.mark.parametrize("compiled", [False, True])
def test_functions_of_plans_take_partial_solutions(options, compiled):
    geometry, a, b = _cloud()
    partial = jaxsns.solve_partial(
        geometry, a, b, share=0.6, epsilon=EPSILON, **options
    )
    plan, at = np.asarray(partial.plan()), 7
    run = jax.jit if compiled else lambda f, **_: f
    found = run(lambda s: jaxsns.largest_entries(s, 4))(partial)
    np.testing.assert_allclose(
        np.asarray(found.matrix.data).reshape(-1, 4), -np.sort(-plan)[:, :4], atol=1e-15
    )
    best = run(jaxsns.argmax_matching)(partial)
    np.testing.assert_array_equal(best, np.where(a > 0, plan.argmax(axis=1), -1))
    labels = np.full(len(a), at)
    loss = run(jaxsns.matching_cross_entropy_with_integer_labels)(partial, labels)
    expected = -np.log(plan[:, at] / np.where(a > 0, plan.sum(axis=1), 1) + (a == 0))
    np.testing.assert_allclose(loss, np.where(a > 0, expected, 0), atol=1e-12)
    draw = run(functools.partial(jaxsns.sample_pairs, size=4000))
    counts = np.zeros(plan.shape)
    np.add.at(counts, tuple(map(np.asarray, draw(partial, jax.random.key(0)))), 1)
    assert counts[plan == 0].sum() == 0
    wanted = 4000 * plan.sum(axis=1) / plan.sum()
    some = wanted > 0
    distance = np.sum((counts.sum(axis=1) - wanted)[some] ** 2 / wanted[some])
    assert distance < chi2.isf(1e-4, some.sum() - 1)


def test_rows_of_a_partial_plan_are_not_drawn_from_the_masses():
    partial = jaxsns.solve_partial(np.eye(3), share=0.5, epsilon=EPSILON)
    with pytest.raises(ValueError, match="rows must be 'plan'"):
        jaxsns.sample_pairs(partial, jax.random.key(0), 2, rows="a")
