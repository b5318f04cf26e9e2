"""Tiny problems in step, and a fixed number of sweeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from jaxsns import Status
from jaxsns.linear import lane_algebra, mapping
from jaxsns.solvers.sinkhorn.fixed_length import unrolled_sinkhorn

R = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(3, 5), (12, 9)])
@jax.numpy_rank_promotion("allow")
def test_algebra_of_lanes(shape):
    n, m = shape
    matrix, v, u = R.random((n, m, 7)), R.random((m, 7)), R.random((n, 7))
    on = lambda f, *x: f(*(jnp.asarray(y) for y in x))
    expected = np.einsum("ijl,jl->il", matrix, v)
    np.testing.assert_allclose(on(lane_algebra.times, matrix, v), expected)
    expected = np.einsum("ijl,il->jl", matrix, u)
    np.testing.assert_allclose(on(lane_algebra.transpose_times, matrix, u), expected)
    gram = np.einsum("ijl,kjl->ikl", matrix, matrix)
    np.testing.assert_allclose(on(lane_algebra.gram, matrix), gram)
    definite = gram + np.eye(n)[:, :, None]
    expected = np.stack(
        [np.linalg.solve(definite[:, :, k], u[:, k]) for k in range(7)], axis=1
    )
    got = on(lane_algebra.solve_definite, definite, u)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("shape", [(4, 4), (7, 5), (20, 26)])
def test_tiny_problems_in_step_get_the_answers_of_a_loop(shape):
    n, m = shape
    costs = jnp.asarray(R.normal(size=(9, n, m)))
    a, b = R.random((9, n)) + 0.1, R.random((9, m)) + 0.1
    a[:3, 1] = 0  # an atom without mass in some lanes
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    a, b = jnp.asarray(a), jnp.asarray(b)
    epsilons = jnp.asarray(np.geomspace(2.0, 3e-3, 9))
    run = lambda c, a, b, e: jaxsns.solve(c, a, b, epsilon=e, tolerance=1e-10)
    batch = jax.jit(jax.vmap(run))(costs, a, b, epsilons)
    assert np.all(np.asarray(batch.status) == Status.CONVERGED)
    for k in range(9):
        alone = run(costs[k], a[k], b[k], epsilons[k])
        got = references.error(
            costs[k], a[k], b[k], batch.f[k], batch.g[k], float(epsilons[k])
        )
        assert got <= 1.01e-10
        np.testing.assert_allclose(batch.plan()[k], alone.plan(), atol=1e-9)


def test_the_worst_of_many_float32_lanes_keeps_a_tolerance_near_rounding():
    """Of 1e5 lanes 26 were said to be within 1e-6 and were not, by up to 1.1e-6."""
    costs = np.random.default_rng(0).normal(size=(100_000, 4, 4)).astype(np.float32)
    masses = jnp.ones(4, jnp.float32)
    run = lambda c: jaxsns.solve(c, masses, masses, epsilon=1.0, tolerance=1e-6)
    batch = jax.jit(jax.vmap(run))(jnp.asarray(costs))
    assert np.all(np.asarray(batch.status) == Status.CONVERGED)
    f, g = np.asarray(batch.f, np.float64), np.asarray(batch.g, np.float64)
    plan = np.exp(f[:, :, None] + g[:, None, :] - costs)
    error = np.abs(plan.sum(2) - 1).sum(1) + np.abs(plan.sum(1) - 1).sum(1)
    assert np.max(error / 4) <= 1e-6  # 8.8e-7 with seeds 0 to 2


def test_a_lane_in_step_does_not_depend_on_its_neighbours():
    costs = jnp.asarray(R.normal(size=(2, 6, 6)))
    run = jax.jit(jax.vmap(lambda c, e: jaxsns.solve(c, epsilon=e)))
    easy = run(costs, jnp.asarray([0.2, 1.0]))
    hard = run(costs, jnp.asarray([0.2, 4e-3]))
    np.testing.assert_array_equal(easy.f[0], hard.f[0])
    np.testing.assert_array_equal(easy.counts.sweeps[0], hard.counts.sweeps[0])


def test_bad_lanes_do_not_spoil_the_good_ones():
    costs = R.normal(size=(4, 5, 5))
    costs[1, 2, 3] = np.nan
    masses = np.full((4, 5), 0.2)
    masses[2] *= 2
    run = lambda c, a, e: jaxsns.solve(c, a, jnp.full(5, 0.2), epsilon=e)
    epsilons = jnp.asarray([0.1, 0.1, 0.1, -1.0])
    batch = jax.jit(jax.vmap(run))(jnp.asarray(costs), jnp.asarray(masses), epsilons)
    expected = [1, Status.NONFINITE, Status.MASS_MISMATCH, Status.INVALID_INPUT]
    assert [int(x) for x in batch.status] == [int(x) for x in expected]
    assert np.all(np.isfinite(batch.f[0]))
    assert np.all(np.isnan(batch.f[1:]))


def test_gradients_and_nested_batches_in_step():
    costs = jnp.asarray(R.normal(size=(2, 3, 5, 4)))
    loss = lambda c: jnp.sum(jaxsns.solve(c, epsilon=0.3).plan() ** 2)
    both = jax.jit(jax.vmap(jax.vmap(jax.grad(loss))))(costs)
    alone = jax.jit(jax.grad(loss))(costs[1, 2])
    np.testing.assert_allclose(both[1, 2], alone, atol=1e-8)


def test_chunks_are_put_together_again():
    double = lambda xs: jax.tree.map(lambda x: 2 * x, xs)
    x = jnp.arange(14.0).reshape(7, 2)
    np.testing.assert_array_equal(mapping.in_chunks(double, x, 3), 2 * x)
    np.testing.assert_array_equal(mapping.in_chunks(double, x, 8), 2 * x)


@pytest.mark.parametrize("left", [[], [3], [0, 2, 6], range(7)])
def test_what_is_left_is_gathered_and_put_back(left):
    x = jnp.arange(7.0)
    mask = jnp.zeros(7, bool).at[jnp.asarray(list(left), int)].set(True)
    calls = []

    def function(argument, before):
        calls.append(argument.shape)
        return 10 * argument + before

    out = mapping.finish(function, x, -x, mask, 2)
    np.testing.assert_allclose(out, jnp.where(mask, 9 * x, -x))
    assert calls == [(2,)]


def test_easy_lanes_sweep_and_hard_ones_go_on():
    # 200 easy problems and a few at small epsilon: the hard ones need Newton.
    costs = jnp.asarray(R.random((203, 4, 4)))
    epsilons = jnp.full(203, 1.0).at[jnp.asarray([5, 77, 200])].set(0.002)
    # Unequal masses: the plan of equal ones can be a permutation, which sweeps find.
    a, b = jnp.asarray([0.1, 0.2, 0.3, 0.4]), jnp.asarray([0.37, 0.08, 0.22, 0.33])
    run = lambda c, e: jaxsns.solve(c, a, b, epsilon=e, tolerance=1e-9)
    batch = jax.jit(jax.vmap(run))(costs, epsilons)
    assert np.all(batch.converged)
    hard = np.asarray(epsilons) < 0.1
    assert np.all(np.asarray(batch.counts.newton_steps)[~hard] == 0)
    assert np.all(np.asarray(batch.counts.newton_steps)[hard] > 0)
    for lane in (0, 5, 77, 202):
        alone = run(costs[lane], epsilons[lane])
        np.testing.assert_allclose(batch.plan()[lane], alone.plan(), atol=1e-9)


def _sweeps(cost, a, b, epsilon, number):
    """Sinkhorn in NumPy: rows, then columns."""
    g = np.zeros(b.size)
    for _ in range(number):
        rows = np.log(np.exp((g[None] - cost) / epsilon).sum(1))
        f = epsilon * (np.log(a) - rows)
        columns = np.log(np.exp((f[:, None] - cost) / epsilon).sum(0))
        g = epsilon * (np.log(b) - columns)
    return np.exp((f[:, None] + g - cost) / epsilon)


def _fixed(cost, number):
    return jaxsns.solve(
        cost, epsilon=0.05, tolerance=1e-6, max_steps=number, early_stop=False
    )


_fixed_batch = jax.jit(jax.vmap(_fixed, in_axes=(0, None)))


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (40, 42), (42, 40)])
@pytest.mark.parametrize("steps", [1, 7])
def test_a_fixed_number_of_sweeps(shape, steps):
    n, m = shape
    costs = R.random((3, n, m))
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    run = _fixed
    batch = _fixed_batch(jnp.asarray(costs), steps)
    for k in range(3):
        alone = run(costs[k], steps)
        expected = _sweeps(costs[k], a, b, 0.05, steps)
        np.testing.assert_allclose(alone.plan(), expected, atol=1e-13)
        np.testing.assert_allclose(batch.plan()[k], expected, atol=1e-13)
        assert int(alone.counts.sweeps) == int(batch.counts.sweeps[k]) == steps
        for f, g, error in (
            (alone.f, alone.g, alone.error),
            (batch.f[k], batch.g[k], batch.error[k]),
        ):
            true = references.error(costs[k], a, b, f, g, 0.05)
            np.testing.assert_allclose(error, true, rtol=1e-9, atol=1e-14)
            plan = references.plan(costs[k], f, g, 0.05)
            np.testing.assert_allclose(plan.sum(0), b, rtol=1e-12)
        assert int(alone.status) == int(batch.status[k]) == Status.MAX_STEPS
    problem = jaxsns.make_problem(costs[0], epsilon=0.05)
    f, g = unrolled_sinkhorn(problem, steps)
    alone = run(costs[0], steps)
    np.testing.assert_allclose(alone.f, f, atol=1e-13)
    np.testing.assert_allclose(alone.g, g, atol=1e-13)
    assert run(costs[0], 300).converged


def test_a_fixed_number_of_sweeps_makes_do_with_one_kernel_where_masses_are_zero():
    """Each sweep had a kernel and a check of its own: 14 passes for 7 sweeps."""
    cost = R.random((40, 42))
    a, b = np.full(40, 1 / 38), np.full(42, 1 / 41)
    a[:2], b[3] = 0, 0
    for exact in ("columns", "rows"):
        method = jaxsns.SinkhornOptions(max_steps=7, early_stop=False, exact=exact)
        s = jaxsns.solve(cost, a, b, epsilon=0.1, method=method)
        assert int(s.counts.sweeps) == 7
        assert int(s.counts.passes) == 2
        true = references.error(cost, a, b, s.f, s.g, 0.1)
        np.testing.assert_allclose(s.error, true, rtol=1e-9)
        exact_sum = s.plan().sum(0 if exact == "columns" else 1)
        np.testing.assert_allclose(exact_sum, b if exact == "columns" else a)


@pytest.mark.parametrize("common", [True, False])
def test_lanes_make_no_more_sweeps_than_they_may(common):
    """What they swept together was not counted: 17 sweeps where 9 were permitted."""
    costs = jnp.asarray(R.random((3, 50, 50)))
    masses = jnp.asarray(R.dirichlet(np.ones(50), 3))
    run = lambda c, a, k: jaxsns.solve(
        c, a, None, epsilon=0.005, tolerance=1e-11, max_steps=k
    )
    axes = (None if common else 0, 0, None)
    batch = jax.jit(jax.vmap(run, in_axes=axes))
    for limit in (3, 9, 700):
        s = batch(costs[0] if common else costs, masses, limit)
        assert np.all(np.asarray(s.counts.sweeps) <= limit)
        for k in range(3):
            alone = run(costs[0 if common else k], masses[k], limit)
            assert int(s.status[k]) == int(alone.status)
            np.testing.assert_allclose(s.plan()[k], alone.plan(), atol=1e-11)


def test_a_fixed_number_of_sweeps_has_the_derivative_of_the_marginals_reached():
    """Against differences of an exact solve between the marginals that were reached."""
    cost, direction = R.random((6, 7)), R.normal(size=(6, 7))
    weights = jnp.asarray(R.random((6, 7)))
    fixed = lambda c: jaxsns.solve(c, epsilon=0.1, max_steps=4, early_stop=False)
    reached = np.asarray(fixed(jnp.asarray(cost)).plan())
    loss = lambda s: jnp.sum(weights * s.plan())
    exact = lambda c: loss(
        jaxsns.solve(c, reached.sum(1), reached.sum(0), epsilon=0.1, tolerance=1e-13)
    )
    h = 1e-5
    difference = exact(cost + h * direction) - exact(cost - h * direction)
    along = jax.jit(lambda c, way: jax.jvp(lambda c: loss(fixed(c)), (c,), (way,))[1])
    got = along(cost, direction)
    np.testing.assert_allclose(got, difference / (2 * h), rtol=1e-6)


def test_a_fixed_number_of_sweeps_says_what_it_cannot_do():
    cost = jnp.ones((3, 3))
    with pytest.raises(ValueError, match="max_steps"):
        jaxsns.solve(cost, epsilon=0.1, early_stop=False)
    with pytest.raises(
        ValueError, match="method must be 'auto', 'sinkhorn' or 'fixed'"
    ):
        jaxsns.solve(cost, epsilon=0.1, early_stop=False, method="newton", max_steps=3)
    with pytest.raises(ValueError, match="continuation"):
        jaxsns.solve(
            cost, epsilon=0.1, early_stop=False, max_steps=3, continuation=True
        )


def test_a_scaling_that_underflows_is_no_point():
    """A long step in float32 on near-empty masses: potentials became -inf, then NaN."""
    cost = np.float32(
        [
            [4.7269346e-08, 3.5904563e-07, 2.2333948e-07],
            [2.6005623e-07, 3.0453361e-08, 5.3073740e-07],
            [4.3217426e-07, 3.5299047e-07, 4.5990042e-10],
            [9.5489199e-08, 2.5131754e-07, 1.2190438e-07],
            [1.6949302e-07, 4.0605272e-07, 1.0000000e-06],
        ]
    )
    a = np.float32(
        [9.7595388e-01, 5.5513732e-07, 1.8102105e-03, 1.7634377e-02, 4.6009826e-03]
    )
    b = np.float32([0.84062225, 0.15937777, 0])
    epsilon = np.float32(1.2429238e-09)
    run = lambda c: jaxsns.solve(c, a, b, epsilon=epsilon)
    s = jax.jit(jax.vmap(run))(cost[None])
    assert int(s.status[0]) == Status.CONVERGED
    np.testing.assert_allclose(s.f[0], run(cost).f, rtol=1e-5)


def test_newton_steps_stay_where_the_kernel_knows_the_plan():
    """Steps of e^40 on float32 kernels lost small entries: 9 in 1000 lanes failed."""
    count, epsilon = 2000, 0.1
    cost = R.uniform(0, 20, size=(count, 5, 4)).astype(np.float32)
    a, b = np.ones(5, np.float32), np.array([1, 1, 0, 3], np.float32)
    solve = lambda c: jaxsns.solve(c, a, b, epsilon=np.float32(epsilon))
    s = jax.jit(jax.vmap(solve))(cost)
    np.testing.assert_array_equal(s.status, int(Status.CONVERGED))
    f, g = np.asarray(s.f, float), np.asarray(s.g, float)
    plan = np.exp((f[:, :, None] + g[:, None, :] - cost) / epsilon)
    error = np.abs(plan.sum(2) - a).sum(1) + np.abs(plan.sum(1) - b).sum(1)
    assert error.max() / 5 < 5e-5  # measured 2e-5; up to 1e22 before
