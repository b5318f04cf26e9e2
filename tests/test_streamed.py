"""Costs that are never stored: the same answers, and nothing of size [n, m]."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import Status
from jaxsns.geometry import memory
from jaxsns.geometry.streamed import Streamed
from jaxsns.geometry.top_k import top_k
from jaxsns.linear import anderson
from jaxsns.solvers.streamed import driver
from jaxsns.streaming import clusters, plan_model
from jaxsns.streaming.arrangement import sort_into_clusters
from jaxsns.streaming.passes import semidual_pass
from tests import references

R = np.random.default_rng(0)
N, M = 140, 170


def _cloud(d=2, n=N, m=M, **options):
    x, y = R.normal(size=(n, d)), R.normal(size=(m, d)) + 0.3
    return jaxsns.PointCloud(jnp.asarray(x), jnp.asarray(y), **options)


def _masses(n, empty=()):
    a = R.random(n) + 0.1
    a[list(empty)] = 0
    return a / a.sum()


def _strange(u, v):
    return jnp.abs(u[0] - 2 * v[0]) + jnp.sum((u - v) ** 2)


@pytest.mark.parametrize(
    ("cost", "d"),
    [("sqeuclidean", 2), ("sqeuclidean", 7), ("l1", 3), (_strange, 2)],
)
def test_operations_are_those_of_the_matrix(cost, d):
    cloud = _cloud(d, 12, 17, cost=cost, block=5, factor=jnp.asarray(0.7))
    f, g = jnp.asarray(R.normal(size=12)), jnp.asarray(R.normal(size=17))
    u, v = jnp.asarray(R.normal(size=(12, 3))), jnp.asarray(R.normal(size=17))
    e = jnp.asarray(0.8)

    @jax.jit
    def both(streamed, dense):
        kernel = streamed.kernel(f, g, e)
        plan = dense.plan(f, g, e)
        pairs = [
            (streamed.softmin(f, e, 0), dense.softmin(f, e, 0)),
            (streamed.softmin(g, e, 1), dense.softmin(g, e, 1)),
            (streamed.marginals(f, g, e), dense.marginals(f, g, e)),
            *(
                (streamed.plan_times(f, g, e, w, k), dense.plan_times(f, g, e, w, k))
                for w, k in ((u, 0), (v, 1))
            ),
            (streamed.transport_cost(f, g, e), dense.transport_cost(f, g, e)),
            *(
                (streamed.largest(f, g, e, 3, k), dense.largest(f, g, e, 3, k))
                for k in (0, 1)
            ),
            (kernel.normal(v, u[:, 0]), plan @ (v * (u[:, 0] @ plan))),
            (kernel.squares_times(v), plan**2 @ v),
            (
                streamed.moments(f > 0, g > 0),
                _moments(dense.cost, f > 0, g > 0),  # largest, mean, deviation
            ),
            (streamed.pair_costs(jnp.arange(5)[:, None], jnp.arange(10).reshape(5, 2)),
             jnp.take_along_axis(dense.cost[:5], jnp.arange(10).reshape(5, 2), axis=1)),
        ]  # fmt: skip
        return [tuple(pair) for pair in pairs]

    for mine, theirs in both(cloud.in_blocks(), cloud.dense()):
        for x, y in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(x, y, rtol=2e-12, atol=1e-13)


def _moments(cost, rows, columns):
    real = rows[:, None] & columns[None, :]
    mean = jnp.mean(cost, where=real)
    square = jnp.mean((cost - mean) ** 2, where=real)
    largest, mean, square = jnp.max(jnp.where(real, cost, -jnp.inf)), mean, square
    return largest, mean, jnp.sqrt(square)


@pytest.mark.parametrize(("n", "k"), [(7, 3), (1000, 8), (997, 5), (64, 8)])
def test_largest_entries_of_long_rows_are_exact(n, k):
    values = R.permutation(4 * n).reshape(4, n).astype(np.float32)
    expected = np.argsort(-values, axis=1)[:, :k]
    np.testing.assert_array_equal(top_k(jnp.asarray(values), k), expected)


@pytest.mark.parametrize(("n", "d"), [(5, 1), (140, 3)])
def test_order_of_points_is_that_of_halving_one_by_one(n, d):
    points = R.normal(size=(n, d)) * np.arange(1, d + 1)
    shape = clusters.layout(n)
    order = clusters.order(jnp.asarray(points), shape)
    inside = shape.number * shape.size
    source = np.append(np.arange(n), np.arange(inside - n) * (n // (inside - n)))
    groups = [np.arange(inside)]
    while len(groups) < shape.number:
        halves = []
        for group in groups:
            here = points[source[group]]
            key = here[:, np.argmax(np.var(here, axis=0))]
            halves += np.split(group[np.argsort(key, kind="stable")], 2)
        groups = halves
    place = np.concatenate(groups)
    np.testing.assert_array_equal(order.source, source[place])
    np.testing.assert_array_equal(order.real, place < n)
    np.testing.assert_array_equal(order.place, np.argsort(place)[:n])


@pytest.mark.parametrize(("n", "parts"), [(150, 1), (150, 3), (64, 1), (1000, 1)])
def test_clusters_hold_every_point_once_and_are_tight(n, parts):
    points = R.random((n, 2))
    shape = clusters.layout(n, parts)
    order = clusters.order(jnp.asarray(points), shape)
    assert (shape.number + shape.empty) % parts == 0
    source = np.asarray(order.source)
    np.testing.assert_array_equal(np.sort(source[np.asarray(order.real)]), np.arange(n))
    back = order.restore(order.sort(jnp.arange(n)))
    np.testing.assert_array_equal(back, np.arange(n))
    mass = _masses(n)
    np.testing.assert_allclose(np.sum(order.masses(jnp.asarray(mass))), 1, rtol=1e-14)
    inside = points[source][: shape.number * shape.size].reshape(shape.number, -1, 2)
    assert np.all(np.isin(np.arange(n), source))
    spread = np.mean(np.sum(np.var(inside, axis=1), axis=-1))
    # A square cut into k cells has cells of 1 / k of its area; twice that is tight.
    assert spread < 2 / shape.number * np.sum(np.var(points, axis=0))


def test_model_has_the_sums_of_the_plan_and_is_the_plan_where_lists_are_whole():
    cloud = _cloud(2, 40, 36).in_blocks()
    problem = jaxsns.make_problem(
        _cloud(2, 40, 36), _masses(40, [3]), _masses(36, [0, 5]), epsilon=0.3
    )
    problem = dataclasses.replace(problem, geometry=cloud)
    arranged = sort_into_clusters(problem)
    inner, shapes = arranged.problem, arranged.shapes
    n, m = inner.shape
    f = jnp.where(inner.a > 0, jnp.asarray(R.normal(size=n)), -1e150)
    seen = semidual_pass(inner, f, shapes)
    plan = np.exp((f[:, None] + seen.g[None] - inner.geometry.dense().cost) / 0.3)
    np.testing.assert_allclose(seen.rows, plan.sum(1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(plan.sum(0), inner.b, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(np.sum(seen.flow), 1, rtol=1e-12)
    for k in (4, min(n, m)):
        e = problem.epsilon
        pattern = plan_model.find_pattern(inner.geometry, f, seen.g, e, k)
        kernel = plan_model.build(
            inner.geometry, f, seen.g, e, pattern,
            seen.rows, seen.columns, seen.flow, shapes,
        )  # fmt: skip
        np.testing.assert_allclose(kernel.times(jnp.ones(m)), plan.sum(1), atol=1e-14)
        sums = kernel.transpose_times(jnp.ones(n))
        np.testing.assert_allclose(sums, plan.sum(0), atol=1e-14)
    v = R.normal(size=m)
    np.testing.assert_allclose(kernel.times(jnp.asarray(v)), plan @ v, atol=1e-14)
    np.testing.assert_allclose(kernel.squares_times(v**2), plan**2 @ v**2, atol=1e-14)


def test_anderson_solves_a_linear_iteration_in_as_many_steps_as_it_has_factors():
    factors = np.repeat([0.9, 0.5, -0.3], 4)
    fixed = R.normal(size=12)
    weights = jnp.asarray(R.random(12) + 0.1)
    point, history = jnp.zeros(12), anderson.empty(12, jnp.float64)
    for _ in range(4):
        change = (factors - 1) * (point - fixed)
        history, point = anderson.mix(history, point, change, weights)
    np.testing.assert_allclose(point, fixed, atol=1e-8)


@jax.jit
def _run(cloud, a, b, epsilon, tolerance):
    return jaxsns.solve(cloud, a, b, epsilon=epsilon, tolerance=tolerance)


def _solve(cloud, a, b, epsilon, tolerance=1e-11):
    """Given or not, a tolerance is an argument: one program for all."""
    return _run(cloud, a, b, epsilon, tolerance)


@jax.jit
def _warm(cloud, a, b, epsilon, tolerance, init):
    return jaxsns.solve(cloud, a, b, epsilon=epsilon, tolerance=tolerance, init=init)


@jax.jit
def _relaxed(cloud, a, b, rho_a, rho_b):
    given = {"epsilon": 0.2, "tolerance": 1e-11, "rho_a": rho_a, "rho_b": rho_b}
    return jaxsns.solve(cloud, a, b, **given)


def _against_reference(solution, cloud, a, b, epsilon, atol):
    cost = np.asarray(cloud.dense().cost)
    assert int(solution.status) == Status.CONVERGED
    # Where a fault spoils the model, sweeps would find the answer all the same.
    assert solution.method == "sinkhorn" or int(solution.counts.passes) < 60
    f, g = references.sinkhorn(cost, a, b, epsilon)
    expected = references.plan(cost, f, g, epsilon)
    found = np.asarray(solution.f), np.asarray(solution.g)
    mine = references.plan(cost, *found, epsilon)
    assert np.abs(mine - expected).sum() < atol
    real_a, real_b = a > 0, b > 0
    np.testing.assert_allclose(solution.f[real_a], f[real_a], atol=10 * atol)
    np.testing.assert_allclose(solution.g[real_b], g[real_b], atol=10 * atol)
    assert np.all(np.isneginf(solution.f[~real_a]))
    error = references.error(cost, a, b, solution.f, solution.g, epsilon)
    np.testing.assert_allclose(solution.error, error, rtol=0.05, atol=1e-13)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.02])
@pytest.mark.parametrize("empty", [(), (0, 7, 139)])
def test_potentials_and_plan_are_those_of_a_dense_loop(epsilon, empty):
    cloud = _cloud(streamed=True, block=50)
    a, b = _masses(N, empty), _masses(M, empty)
    solution = _solve(cloud, a, b, epsilon)
    _against_reference(solution, cloud, a, b, epsilon, 1e-9)


def test_rows_that_the_start_loses_are_found_again():
    cloud = _cloud(streamed=True, block=50)
    # Points far from all others: clusters say nothing of where they go.
    cloud = dataclasses.replace(cloud, x=cloud.x.at[:3].multiply(12.0))
    a, b = _masses(N), _masses(M)
    solution = _solve(cloud, a, b, 0.1)
    _against_reference(solution, cloud, a, b, 0.1, 1e-9)


def test_penalised_marginals():
    cloud = _cloud(streamed=True)
    a, b = _masses(N, [2]), 1.3 * _masses(M)
    solution = _relaxed(cloud, a, b, np.ones(N), 2.0)
    assert int(solution.status) == Status.CONVERGED
    assert int(solution.counts.passes) < 30
    cost = np.asarray(cloud.dense().cost)
    f, g = references.unbalanced(cost, a, b, 0.2, 1.0, 2.0)
    np.testing.assert_allclose(solution.g, g, atol=1e-9)
    np.testing.assert_allclose(
        references.plan(cost, np.asarray(solution.f), np.asarray(solution.g), 0.2),
        references.plan(cost, f, g, 0.2),
        atol=1e-11,
    )


def test_sinkhorn_over_relaxed_and_with_a_fixed_number_of_sweeps():
    cloud = _cloud(streamed=True, block=50)
    a, b = _masses(N, [1]), _masses(M)
    solution = jaxsns.solve(
        cloud, a, b, epsilon=0.3, tolerance=1e-11, method="sinkhorn"
    )
    _against_reference(solution, cloud, a, b, 0.3, 1e-9)
    assert int(solution.counts.passes) < 150
    fixed = jaxsns.solve(cloud, a, b, epsilon=0.3, early_stop=False, max_steps=5)
    stored = dataclasses.replace(cloud, streamed=False)
    dense = jaxsns.solve(stored, a, b, epsilon=0.3, early_stop=False, max_steps=5)
    np.testing.assert_allclose(fixed.plan(), dense.plan(), atol=1e-14)
    assert int(fixed.status) == Status.MAX_STEPS
    assert int(fixed.counts.sweeps) == 5


def test_sinkhorn_does_not_lose_rows_that_underflow():
    cloud = _cloud(streamed=True).astype(jnp.float32)
    cloud = dataclasses.replace(cloud, x=cloud.x.at[:3].multiply(12.0))
    solution = jaxsns.solve(cloud, epsilon=0.3, method="sinkhorn", max_steps=40)
    assert np.all(np.isfinite(solution.f))
    assert float(solution.error) < 0.1


def test_a_start_from_the_solution_of_a_neighbour_is_used():
    cloud = _cloud(streamed=True, block=50)
    a, b = _masses(N), _masses(M)
    solution = _solve(cloud, a, b, 0.1)
    moved = dataclasses.replace(cloud, x=cloud.x + 0.001 * R.normal(size=(N, 2)))
    fresh = _solve(moved, a, b, 0.1)
    warm = _warm(moved, a, b, 0.1, 1e-11, (solution.f, solution.g))
    _against_reference(warm, moved, a, b, 0.1, 1e-9)
    assert int(warm.counts.passes) < int(fresh.counts.passes)
    # One that is of no use is not used.
    far = 5 * jnp.arange(N) / N
    cold = _warm(moved, a, b, 0.1, 1e-11, (far, solution.g))
    _against_reference(cold, moved, a, b, 0.1, 1e-9)


def test_float32_reaches_its_tolerance_as_float64_judges():
    cloud = _cloud(streamed=True).astype(jnp.float32)
    a, b = np.full(N, 1 / N), np.full(M, 1 / M)
    masses = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    for epsilon in (0.5, 0.03):
        solution = _solve(cloud, *masses, epsilon, 1e-4)
        assert solution.f.dtype == jnp.float32
        assert int(solution.status) == Status.CONVERGED
        cost = np.asarray(cloud.astype(jnp.float64).dense().cost)
        assert references.error(cost, a, b, solution.f, solution.g, epsilon) < 1.1e-4


def test_statuses():
    cloud = _cloud(streamed=True, block=50)
    a, b = jnp.asarray(_masses(N)), jnp.asarray(_masses(M))
    broken = dataclasses.replace(cloud, x=cloud.x.at[4, 0].set(jnp.nan))
    for given, expected in (
        ((broken, a, b, 0.1), Status.NONFINITE),
        ((cloud, 2 * a, b, 0.1), Status.MASS_MISMATCH),
        ((cloud, a, b, -0.1), Status.INVALID_INPUT),
        ((cloud, a, b, 0.1, 1e-18), Status.STALLED),
    ):
        solution = _solve(*given)
        assert int(solution.status) == expected
        assert np.all(np.isnan(solution.f)) == (expected != Status.STALLED)


def test_a_path_in_epsilon_and_limits_of_steps_on_it(monkeypatch):
    # As if clusters were wider: three larger epsilons come first.
    monkeypatch.setattr(driver, "WIDTH", 5.0)
    cloud = _cloud(streamed=True, block=49)
    a, b = _masses(N), _masses(M)
    run = jax.jit(
        lambda steps: jaxsns.solve(
            cloud, a, b, epsilon=0.02, tolerance=1e-11, max_steps=steps
        )
    )
    whole = run(1000)
    _against_reference(whole, cloud, a, b, 0.02, 1e-9)
    cost, errors = np.asarray(cloud.dense().cost), []
    for steps in range(1, int(whole.counts.sweeps), 2):
        short = run(steps)
        assert int(short.status) == Status.MAX_STEPS
        # One more pass judges where the limit was met; no steps follow.
        assert int(short.counts.sweeps) <= steps + 1
        # Judged at the wanted epsilon, wherever on the path the limit was met.
        error = references.error(cost, a, b, short.f, short.g, 0.02)
        np.testing.assert_allclose(short.error, error, rtol=1e-6, atol=1e-13)
        errors.append(error)
    assert errors[-1] < 1e-2 < errors[0]


def test_fixed_sweeps_end_however_many_they_are():
    cloud = _cloud(2, 40, 30, streamed=True).astype(jnp.float32)
    solution = jaxsns.solve(
        cloud, epsilon=0.5, early_stop=False, max_steps=300, tolerance=1e-9
    )
    assert int(solution.counts.sweeps) == 300
    assert int(solution.status) == Status.MAX_STEPS


def test_weights_of_penalties_that_are_partly_infinite():
    cloud = _cloud(streamed=True)
    a, b = _masses(N, [2, 80]), _masses(M)
    rho = np.where(np.arange(N) < 70, np.inf, 1.0)
    solution = _relaxed(cloud, a, b, rho, 2.0)
    assert int(solution.status) == Status.CONVERGED
    cost = np.asarray(cloud.dense().cost)
    f, g = references.unbalanced(cost, a, b, 0.2, rho, 2.0)
    np.testing.assert_allclose(solution.g, g, atol=1e-9)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (3, 2)])
def test_a_few_points(n, m):
    cloud = _cloud(2, n, m, streamed=True)
    a, b = _masses(n), _masses(m)
    _against_reference(_solve(cloud, a, b, 0.3), cloud, a, b, 0.3, 1e-9)


def _loss(kind, streamed, x, y, a, b, epsilon):
    cloud = jaxsns.PointCloud(x, y, streamed=streamed, block=50)
    solution = jaxsns.solve(cloud, a, b, epsilon=epsilon, tolerance=1e-12)
    if kind == "value":
        return solution.value
    weights = jnp.sin(jnp.arange(N * 1.0))
    inner = jnp.vdot(weights, jnp.where(a > 0, solution.f, 0))
    means = jnp.sum(weights[:, None] * solution.barycentric(y))
    return inner + means + solution.transport_cost


# Not jitted: one program of the solve serves all orders of derivatives.
_value_and_slopes = jax.value_and_grad(_loss, argnums=(2, 3, 4, 6))


def _gradient(*given):
    return _value_and_slopes(*given)[1]


def _close(mine, theirs):
    for x, y in zip(mine, theirs, strict=True):
        assert np.all(np.isfinite(y))
        np.testing.assert_allclose(x, y, atol=1e-8 * np.abs(y).max())


def test_first_derivatives_are_those_of_the_matrix():
    cloud = _cloud()
    given = cloud.x, cloud.y, jnp.asarray(_masses(N, [5])), jnp.asarray(_masses(M))
    _close(*(_gradient("all", streamed, *given, 0.1) for streamed in (True, False)))


def test_a_plan_that_nearly_splits_is_solved_as_the_matrix_is():
    # Three blobs, 1 - sigma^2 = 1e-8. Clusters of points have members of two blobs, so
    # steps of the model stand still, and steps on the exact matrix follow.
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [1.5, 2.6]])
    blobs = [np.arange(k) * 3 // k for k in (N, M)]
    x, y = (0.3 * R.normal(size=(len(k), 2)) + centres[k] for k in blobs)
    a, b = (1 / (3 * np.bincount(k)[k]) for k in blobs)
    cloud = jaxsns.PointCloud(x, y, streamed=True, block=50)
    solution = _solve(cloud, a, b, 0.2)
    assert int(solution.status) == Status.CONVERGED
    assert int(solution.counts.linear_steps) > 0
    cost = np.asarray(cloud.dense().cost)
    found = np.asarray(solution.f), np.asarray(solution.g)
    f, g = references.newton(cost, a, b, 0.2, *found)
    mine, expected = (references.plan(cost, *p, 0.2) for p in (found, (f, g)))
    assert np.abs(mine - expected).sum() < 1e-11
    # Potentials, and derivatives, are known to the error over 1 - sigma^2.
    np.testing.assert_allclose(found[0], f, atol=1e-5)
    np.testing.assert_allclose(found[1], g, atol=1e-5)
    given = [jnp.asarray(values) for values in (x, y, a, b)]
    slopes = (_gradient("all", streamed, *given, 0.2) for streamed in (True, False))
    for streamed, stored in zip(*slopes, strict=True):
        assert np.all(np.isfinite(stored))
        np.testing.assert_allclose(streamed, stored, atol=1e-5 * np.abs(stored).max())


@pytest.mark.parametrize("seed", range(3))
def test_clusters_with_unequal_masses_are_solved_as_the_matrix_is(seed):
    # Little mass passes from cluster to cluster, over costs of many epsilons: steps of
    # the model stand still, and undamped ones on the exact matrix do too.
    random = np.random.default_rng(seed)
    centres = 4 * random.normal(size=(3, 2))
    x, y = (
        centres[random.integers(3, size=k)] + 0.3 * random.normal(size=(k, 2))
        for k in (N, M)
    )
    a, b = random.random(N) + 0.01, random.random(M) + 0.01
    a, b = a / a.sum(), b / b.sum()
    cloud = jaxsns.PointCloud(x, y, streamed=True, block=50)
    solution = _solve(cloud, a, b, 0.3)
    assert int(solution.status) == Status.CONVERGED
    cost = np.asarray(cloud.dense().cost)
    found = np.asarray(solution.f), np.asarray(solution.g)
    polished = references.newton(cost, a, b, 0.3, *found)
    plans = (references.plan(cost, *p, 0.3) for p in (found, polished))
    assert np.abs(np.subtract(*plans)).sum() < 1e-10


@jax.jit
def _slopes_of_f(x, y, a, b, weights):
    def inner(x, a):
        cloud = jaxsns.PointCloud(x, y, streamed=x.dtype == jnp.float32, block=16)
        return jnp.vdot(weights, jaxsns.solve(cloud, a, b, epsilon=2e-3).f)

    return jax.grad(inner, (0, 1))(x, a)


@pytest.mark.parametrize("seed", [0, 4, 6, 7, 8])
def test_float32_derivatives_of_potentials_are_numbers_at_a_small_epsilon(seed):
    # 1 - sigma^2 is 1e-3. Rounding of sums makes the gauge's eigenvalue negative, and
    # points in the order of clusters have another rounding than the system has [D23].
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(30, 2)), random.normal(size=(50, 2))
    a, b = random.random(30) + 0.05, random.random(50) + 0.05
    given = x, y, a / a.sum(), b / b.sum(), random.normal(size=30)
    streamed, stored = (
        _slopes_of_f(*(jnp.asarray(values, dtype) for values in given))
        for dtype in (jnp.float32, jnp.float64)
    )
    # Measured: up to 1.3e-3 in points and 1.6e-2 in masses.
    for mine, theirs, error in zip(streamed, stored, (4e-3, 5e-2), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=error * np.abs(theirs).max())


def test_derivatives_are_differences_of_solves():
    cloud = _cloud()
    a, b = jnp.asarray(_masses(N)), jnp.asarray(_masses(M))
    way = jnp.asarray(R.normal(size=(N, 2)))

    def along(t):
        x = cloud.x + t * way
        value, slopes = _value_and_slopes("all", True, x, cloud.y, a, b, 0.05)
        return value, jnp.vdot(slopes[0], way)

    slope, h = along(0.0)[1], 1e-4
    near, far = ((along(k * h)[0] - along(-k * h)[0]) / (2 * k * h) for k in (1, 2))
    # Fourth order: what is left is 1e-9 of it, and rounding 1e-8.
    np.testing.assert_allclose(slope, (4 * near - far) / 3, rtol=1e-7)


def test_first_and_second_derivatives_of_the_value():
    cloud = _cloud()
    given = cloud.x, cloud.y, jnp.asarray(_masses(N, [5])), jnp.asarray(_masses(M)), 0.1
    way = jnp.asarray(R.normal(size=(N, 2)))

    def both(streamed, x, *rest):
        slopes = jax.grad(_loss, argnums=(2, 3, 4, 6))
        along = lambda x: slopes("value", streamed, x, *rest)
        return jax.jvp(along, (x,), (way,))

    for mine, theirs in zip(*(both(k, *given) for k in (True, False)), strict=True):
        _close(mine, theirs)


def _sizes(jaxpr):
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            yield int(np.prod(variable.aval.shape))
        for value in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _sizes(inner)


@pytest.mark.parametrize("kind", ["value", "all"])
def test_nothing_of_the_size_of_the_costs_is_formed(kind):
    n = 4000
    points = jax.ShapeDtypeStruct((n, 2), jnp.float64)
    masses = jax.ShapeDtypeStruct((n,), jnp.float64)

    def loss(x, y, a, b):
        cloud = jaxsns.PointCloud(x, y, streamed=True, block=100)
        solution = jaxsns.solve(cloud, a, b, epsilon=0.1)
        if kind == "value":
            return solution.value
        means = jnp.sum(solution.barycentric(y))
        return solution.f[0] + means + solution.transport_cost

    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 2)))(
        points, points, masses, masses
    )
    # Lists of largest entries that are compared with each other are the largest.
    largest = max(_sizes(jaxpr.jaxpr))
    assert largest <= plan_model.COMPARED * plan_model.KEPT**2 < n * n / 4


def test_the_shape_and_the_memory_choose(monkeypatch):
    cloud = _cloud()
    assert not isinstance(cloud.formed(), Streamed)
    monkeypatch.setattr(memory, "MOST", 4 * 8 * N * M - 1)
    assert isinstance(cloud.formed(), Streamed)
    monkeypatch.setattr(memory, "MOST", 1 << 40)
    monkeypatch.setattr(memory, "device_bytes", lambda: 8 * N * M)
    assert isinstance(cloud.formed(), Streamed)
    small = dataclasses.replace(cloud, streamed=False)
    assert not isinstance(small.formed(), Streamed)


def test_one_trace_for_all_numbers():
    # The program of the tests before, which is there or is made by the first call.
    cloud, a, b = _cloud(streamed=True, block=50), _masses(N), _masses(M)
    sizes = []
    for epsilon, tolerance in ((0.1, 1e-6), (1.0, 1e-3)):
        assert _run(cloud, a, b, epsilon, tolerance).converged
        sizes.append(_run._cache_size())
    assert sizes[0] == sizes[1]


def test_lanes_of_more_rows_than_columns_and_many_dimensions():
    a, b = _masses(90), _masses(60)
    clouds = [_cloud(10, 90, 60, streamed=True) for _ in range(2)]
    stacked = jax.tree.map(lambda *t: jnp.stack(t), *clouds)
    run = jax.jit(jax.vmap(lambda c, e: _solve(c, a, b, e)))
    together = run(stacked, jnp.asarray([0.3, 0.5]))
    for k, epsilon in enumerate((0.3, 0.5)):
        lane = jax.tree.map(lambda t, k=k: t[k], together)
        _against_reference(lane, clouds[k], a, b, epsilon, 1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "sns"}, "'sns' needs a stored matrix"),
        ({"method": jaxsns.NewtonOptions(linear_solver="cg")}, "linear_solver must be"),
        ({"continuation": True}, "continuation must be None"),
        ({"epsilon": 0.1, "relative_to": "median"}, "median of costs needs all"),
    ],
)
def test_what_needs_a_matrix_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        jaxsns.solve(_cloud(streamed=True), **options)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"block": 0}, "block must be a positive integer"),
        ({"block": True}, "block must be a positive integer"),
        ({"axis": "d"}, "mesh and axis go together"),
    ],
)
def test_bad_fields_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        _cloud(**fields)
    with pytest.raises(TypeError, match="streamed must be"):
        _cloud(streamed="yes")


def test_scales_of_streamed_costs():
    a = _masses(N, [0])
    cloud = _cloud()
    for name in ("max", "mean", "std"):
        values = [
            jaxsns.make_problem(
                dataclasses.replace(cloud, streamed=streamed),
                a, epsilon=0.1, relative_to=name,
            ).epsilon
            for streamed in (True, False)
        ]  # fmt: skip
        np.testing.assert_allclose(*values, rtol=1e-12)
