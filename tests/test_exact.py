"""Transport without entropy against linear programs, and its proof by the gap."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from jaxsns import (
    Dense,
    ExactSolution,
    NotConvergedError,
    PointCloud,
    Status,
    solve_exact,
)
from jaxsns.exact import costs, paths, pivots, ties, tree

run = jax.jit(solve_exact)
N, M = 6, 5


def _linear_program(cost, a, b):
    """Optimal value by HiGHS; None if there is no plan."""
    n, m = cost.shape
    allowed = np.isfinite(cost).ravel()
    rows = np.kron(np.eye(n), np.ones((1, m)))
    columns = np.kron(np.ones((1, n)), np.eye(m))
    out = linprog(
        np.where(allowed, np.nan_to_num(cost, posinf=0).ravel(), 0),
        A_eq=np.vstack([rows, columns]),
        b_eq=np.r_[a, b],
        bounds=[(0, None if yes else 0) for yes in allowed],
        method="highs",
    )
    assert out.status in (0, 2)
    return out.fun if out.status == 0 else None


def _masses(rng, size, kind):
    if kind == "integer":  # many sums of some masses agree: degenerate vertices
        mass = np.r_[1.0, rng.integers(0, 4, size - 1)]
    else:
        mass = rng.random(size) + 0.01
    if kind == "zero":
        mass[rng.integers(size)] = 0
    return mass / mass.sum()


def _problem(seed, kind):
    rng = np.random.default_rng(seed)
    a, b = _masses(rng, N, kind), _masses(rng, M, kind)
    if kind == "integer":
        return rng.integers(0, 4, (N, M)).astype(float), a, b
    cost = rng.normal(size=(N, M))
    if kind == "forbidden":
        cost[rng.random((N, M)) < 0.4] = np.inf
    return cost, a, b


def _check(solution, cost, a, b):
    """What must hold of any answer: both sides are feasible and the gap is theirs."""
    plan, f, g = map(np.asarray, (solution.plan(), solution.f, solution.g))
    assert plan.min() >= 0
    assert abs(plan.sum(1) - a).max() < 1e-14
    assert abs(plan.sum(0) - b).max() < 1e-14
    slack = cost - f[:, None] - g[None, :]
    assert slack.min() > -1e-14
    paid = (np.where(plan > 0, cost, 0) * plan).sum()
    np.testing.assert_allclose(solution.value, paid, rtol=0, atol=1e-14)
    np.testing.assert_allclose(solution.dual_value, a @ f + b @ g, rtol=0, atol=1e-14)
    size = (np.where(plan > 0, abs(cost), 0) * plan).sum()
    assert (paid - (a @ f + b @ g)) <= float(solution.gap) * size + 1e-14


@pytest.mark.parametrize("kind", ["generic", "zero", "integer", "forbidden"])
def test_value_and_both_certificates(kind):
    found = set()
    for seed in range(12):
        cost, a, b = _problem(seed, kind)
        best = _linear_program(cost, a, b)
        solution = run(cost, a, b)
        found.add(best is None)
        if best is None:
            assert solution.status == Status.INFEASIBLE
            assert np.isinf(solution.value)
            assert np.isinf(solution.gap)
            continue
        assert solution.status == Status.CONVERGED
        assert float(solution.gap) < 1e-13
        np.testing.assert_allclose(solution.value, best, rtol=0, atol=1e-13)
        _check(solution, cost, a, b)
    assert found == ({True, False} if kind == "forbidden" else {False})


def test_a_vertex_where_the_optimum_is_unique():
    for seed in range(5):
        solution = run(*_problem(seed, "generic"))
        assert int((solution.plan() > 0).sum()) <= N + M - 1


@pytest.mark.parametrize("integer", [False, True])
def test_assignment_is_a_permutation(integer):
    rng = np.random.default_rng(3)
    cost = rng.integers(0, 5, (4, 6, 6)) if integer else rng.random((4, 6, 6))
    solution = jax.vmap(solve_exact)(jnp.asarray(cost, float))
    assert solution.converged.all()
    for k in range(4):
        rows, columns = linear_sum_assignment(cost[k])
        np.testing.assert_allclose(
            solution.value[k], cost[k][rows, columns].mean(), rtol=1e-14
        )
        chosen = np.asarray(solution.permutation[k])
        assert sorted(chosen) == list(range(6))
        assert cost[k][np.arange(6), chosen].sum() == pytest.approx(
            cost[k][rows, columns].sum(), rel=1e-14
        )


def test_jit_eager_and_vmap_agree_and_a_start_changes_nothing():
    cost, a, b = _problem(0, "generic")
    eager, traced = solve_exact(cost, a, b), run(cost, a, b)
    both = jax.vmap(solve_exact, in_axes=(0, None, None))(
        jnp.stack([jnp.asarray(cost), jnp.asarray(cost) ** 2]), a, b
    )
    again = run(cost, a, b, init=(eager.f + 3.0, eager.g))
    for other in (traced, jax.tree.map(lambda x: x[0], both), again):
        np.testing.assert_allclose(other.plan(), eager.plan(), rtol=0, atol=1e-15)
        np.testing.assert_allclose(other.f, eager.f, rtol=0, atol=1e-14)
        np.testing.assert_allclose(other.g, eager.g, rtol=0, atol=1e-14)
    assert both.converged.all()
    assert int(again.steps) == 0


def test_derivatives_are_those_of_the_linear_program():
    cost, a, b = _problem(1, "generic")
    value = lambda *args: run(*args).value
    by_cost, by_a = jax.grad(value, argnums=(0, 1))(jnp.asarray(cost), a, b)
    rng = np.random.default_rng(0)
    change, moved = rng.normal(size=(N, M)), rng.normal(size=N)
    moved -= moved.mean()  # totals stay equal
    h = 1e-6  # the value is linear near it
    best = lambda t, s: _linear_program(cost + t * change, a + s * moved, b)
    by_differences = (best(h, 0) - best(-h, 0)) / (2 * h)
    np.testing.assert_allclose((by_cost * change).sum(), by_differences, atol=1e-8)
    by_differences = (best(0, h) - best(0, -h)) / (2 * h)
    np.testing.assert_allclose(by_a @ moved, by_differences, atol=1e-8)


def test_points_without_a_matrix():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(8, 2)) + 0.5
    a, b = _masses(rng, 9, "zero"), _masses(rng, 8, "generic")
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    both = lambda x: solve_exact(PointCloud(x, y, streamed=True), a, b, gap=1e-4)
    grad, solution = jax.jit(
        jax.grad(lambda x: (lambda s: (s.value, s))(both(x)), has_aux=True)
    )(x)
    best = _linear_program(cost, a, b)
    assert solution.flow is None
    assert solution.status == Status.CONVERGED
    assert best - 1e-12 <= float(solution.value) <= best * (1 + 1e-4)
    assert float(solution.dual_value) <= best + 1e-12
    plan = np.asarray(solution.plan())
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-12)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-12)
    slack = cost - np.asarray(solution.f)[:, None] - np.asarray(solution.g)[None]
    assert slack[a > 0].min() > -1e-12
    exact = 2 * (x * plan.sum(1, keepdims=True) - plan @ y)
    np.testing.assert_allclose(grad, exact, atol=1e-10)


def test_float32_says_what_it_reached():
    cost, a, b = _problem(2, "generic")
    best = _linear_program(cost, a, b)
    wide = solve_exact(np.float32(cost), np.float32(a), np.float32(b))
    assert wide.f.dtype == jnp.float64
    assert wide.converged
    np.testing.assert_allclose(wide.value, best, rtol=1e-6)
    with jax.enable_x64(False):
        narrow = solve_exact(np.float32(cost), np.float32(a), np.float32(b))
        assert narrow.f.dtype == jnp.float32
        assert narrow.converged
        np.testing.assert_allclose(float(narrow.value), best, rtol=1e-5)
        assert float(narrow.gap) <= 1e-4


def test_statuses_and_messages():
    cost, a, b = _problem(0, "generic")
    short = run(cost, a, b, init=(np.zeros(N), np.zeros(M)), max_steps=1)
    assert short.status == Status.MAX_STEPS
    assert float(short.gap) > 1e-6
    _check(short, cost, a, b)
    with pytest.raises(NotConvergedError):
        short.raise_if_failed()
    assert run(cost, -a, b).status == Status.INVALID_INPUT
    assert run(cost, 2 * a, b).status == Status.MASS_MISMATCH
    broken = run(np.where(cost == cost.max(), np.nan, cost), a, b)
    assert broken.status == Status.NONFINITE
    assert np.isnan(broken.value)
    assert np.isnan(broken.plan()).all()
    with pytest.raises(ValueError, match="gap must be positive"):
        solve_exact(cost, a, b, gap=0.0)
    with pytest.raises(ValueError, match="equal totals"):
        solve_exact(cost, 2 * a, b)
    with pytest.raises(ValueError, match="n = m"):
        _ = run(cost, a, b).permutation
    assert "MAX_STEPS" in repr(short)


def test_costs_of_zero_and_single_atoms():
    zero = run(np.zeros((N, M)), *_problem(0, "generic")[1:])
    assert zero.converged
    assert float(zero.value) == 0
    assert float(zero.gap) == 0
    row = solve_exact(Dense(np.array([[1.0, 2.0, 3.0]])), [1.0], [0.2, 0.3, 0.5])
    np.testing.assert_allclose(row.plan(), [[0.2, 0.3, 0.5]])
    assert isinstance(row, ExactSolution)
    assert row.converged
    assert {x.name for x in dataclasses.fields(row)} >= {"f", "g", "gap", "value"}


def test_shortest_paths_against_repeated_relaxation():
    rng = np.random.default_rng(5)
    slack, used = rng.random((N, M)), rng.random((N, M)) < 0.3
    slack[used] = 0
    sources, sinks = np.arange(N) < 2, np.zeros(M, bool)
    found = paths.forest(
        jnp.asarray(slack), jnp.zeros(N), jnp.zeros(M), used.T, sources, sinks
    )
    rows, columns = np.where(sources, 0, np.inf), np.full(M, np.inf)
    for _ in range(N + M):
        columns = np.minimum(columns, (rows[:, None] + slack).min(0))
        back = np.where(used, columns[None, :], np.inf).min(1)
        rows = np.minimum(rows, back)
    np.testing.assert_allclose(found.rows, rows, atol=1e-15)
    np.testing.assert_allclose(found.columns, columns, atol=1e-15)


def test_a_tree_of_tight_arcs_with_feasible_potentials():
    cost, a, b = _problem(6, "generic")
    f = np.random.default_rng(8).normal(size=N)
    g = (cost - f[:, None]).min(0)
    table = jnp.asarray(cost)
    grown, f, g = tree.grow(table, table.T, jnp.asarray(f), jnp.asarray(g))
    f, g = np.asarray(f), np.asarray(g)
    slack = cost - f[:, None] - g[None]
    assert slack.min() > -1e-14
    row, column, real = map(np.asarray, tree.arcs(grown.parent, N))
    assert real.sum() == N + M - 1
    pairs = row[real], column[real] + N
    graph = csr_array((np.ones(N + M - 1), pairs), (N + M,) * 2)
    assert connected_components(graph, directed=False)[0] == 1
    np.testing.assert_allclose(slack[row[real], column[real]], 0, atol=1e-14)
    mass, plan = (
        np.asarray(tree.flow(grown, jnp.asarray(a), jnp.asarray(b))),
        np.zeros((N, M)),
    )
    plan[row[real], column[real]] = mass[real]
    np.testing.assert_allclose(plan.sum(1), a, atol=1e-15)
    np.testing.assert_allclose(plan.sum(0), b, atol=1e-15)
    again = tree.potentials(grown.parent, table)
    shift = f[0] - float(again[0][0])
    np.testing.assert_allclose(again[0] + shift, f, atol=1e-14)
    np.testing.assert_allclose(again[1] - shift, g, atol=1e-14)


def test_pivots_from_potentials_that_are_far_away():
    """With an optimal basis in the end, which rounds of shortest paths do not touch."""
    found = []
    for seed in range(6):
        cost, a, b = _problem(seed, "generic")
        g = cost.min(0)
        basis = pivots.crossover(
            *map(jnp.asarray, (cost, a, b, (cost - g).min(1), g)),
            jnp.asarray(1e-14),
            jnp.asarray(10_000, jnp.int32),
        )
        row, column, real = map(np.asarray, tree.arcs(basis.parent, N))
        flow, slack = np.asarray(basis.flow), cost - basis.f[:, None] - basis.g[None]
        assert flow.min() > -1e-14
        assert slack.min() > -1e-14
        paid = (flow * cost[row % N, column % M])[real].sum()
        np.testing.assert_allclose(paid, _linear_program(cost, a, b), atol=1e-13)
        found.append(int(basis.pivots))
    assert max(found) > 2


SIDE = 6  # pixels


def _pixels(seed, kind):
    """Two images whose distances tie, of size 36 x 36."""
    rng = np.random.default_rng(seed)
    place = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)
    apart = np.abs(place[:, None] - place[None])
    cost = {
        "l1": apart.sum(-1),
        "squares": (apart**2).sum(-1),
        "few": rng.integers(0, 3, (SIDE**2,) * 2),
    }[kind]
    a, b = rng.integers(0, 9, (2, SIDE**2)) / 8 + 0.01
    return cost * 0.3, a / a.sum(), b / b.sum()


@pytest.mark.parametrize("kind", ["l1", "squares", "few"])
def test_costs_that_tie(kind):
    for seed in range(4):
        cost, a, b = _pixels(seed, kind)
        solution = run(cost, a, b)
        assert solution.status == Status.CONVERGED
        best = _linear_program(cost, a, b)
        np.testing.assert_allclose(solution.value, best, rtol=0, atol=1e-13)
        _check(solution, cost, a, b)
        even = np.full(SIDE**2, 1 / SIDE**2)
        matched = run(cost, even, even)
        rows, columns = linear_sum_assignment(cost)
        np.testing.assert_allclose(
            matched.value, cost[rows, columns].mean(), rtol=0, atol=1e-14
        )
        assert sorted(np.asarray(matched.permutation)) == list(range(SIDE**2))
        assert int((matched.plan() > 0).sum()) == SIDE**2


def test_which_costs_tie():
    rng = np.random.default_rng(0)
    share, usual = ties.differences(jnp.asarray(rng.integers(0, 50, (60, 70)) / 7))
    assert share > 0.9
    np.testing.assert_allclose(usual, 1 / 7, rtol=1e-12)
    cost = jnp.asarray(rng.random((60, 70))).at[:, 30:].set(jnp.inf)
    other, tied = ties.untied(cost)
    assert not tied
    np.testing.assert_array_equal(other, cost)
    assert ties.differences(jnp.full((4, 3), jnp.inf))[1] == 0


def test_least_entries_of_some_rows():
    rng = np.random.default_rng(7)
    table, active = rng.random((19, 4)), rng.random(19) < 0.6
    out = jax.jit(lambda t, k: costs.least(lambda t: t, k, t))(table, active)
    kept = np.where(active[:, None], table, np.inf)
    np.testing.assert_array_equal(out.value, kept.min(0))
    np.testing.assert_array_equal(out.row, kept.argmin(0))


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_atoms(n, m, dtype):
    rng = np.random.default_rng(n + 10 * m)
    cost = rng.normal(size=(n, m)).astype(dtype)
    a, b = np.full(n, 1 / n, dtype), np.full(m, 1 / m, dtype)
    solution = solve_exact(cost, a, b).raise_if_failed()
    want = _linear_program(cost.astype(float), a, b)
    np.testing.assert_allclose(solution.value, want, rtol=0, atol=1e-6)
    np.testing.assert_allclose(solution.plan().sum(1), a, rtol=0, atol=1e-6)
    reduced = cost - np.asarray(solution.f)[:, None] - np.asarray(solution.g)
    assert reduced.min() > -1e-6
    assert np.abs(reduced[np.asarray(solution.plan()) > 0]).max() < 1e-6
