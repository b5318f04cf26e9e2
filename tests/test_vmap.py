"""Batches: every lane as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from jaxsns import Status
from jaxsns.solvers.batched import joint_sinkhorn
from jaxsns.solvers.batched import vmap as batching

METHODS = ["auto", "newton", "sinkhorn", "sns"]
R = np.random.default_rng(0)
COSTS = jnp.asarray(R.random((5, 70, 72)))
EPSILONS = jnp.asarray([1.0, 0.1, 0.02, 0.005, 1 / 1200])


@pytest.mark.parametrize("method", METHODS)
def test_lanes_get_the_answer_and_status_that_they_get_alone(method):
    run = lambda cost, epsilon: jaxsns.solve(
        cost, epsilon=epsilon, tolerance=1e-10, method=method
    )
    # The smallest epsilon is for Newton: 20,000 sweeps do not do, nor a tuned warm-up.
    number = 4 if method in ("sns", "sinkhorn") else 5
    batch = jax.jit(jax.vmap(run))(COSTS[:number], EPSILONS[:number])
    for k in range(number):
        alone = run(COSTS[k], EPSILONS[k])
        assert int(batch.status[k]) == int(alone.status)
        assert int(batch.status[k]) == jaxsns.Status.CONVERGED
        # Both are within 1e-10 of the solution, by different rounding.
        np.testing.assert_allclose(batch.plan()[k], alone.plan(), atol=1e-9)
        np.testing.assert_allclose(batch.f[k], alone.f, atol=1e-8)
        sweeps, fewest = int(batch.counts.sweeps[k]), int(alone.counts.sweeps)
        # Lanes of "auto" sweep side by side before they take Newton steps.
        spare = joint_sinkhorn.ON_OWN_KERNELS if method == "auto" else 0
        assert -max(4, fewest // 2) <= sweeps - fewest <= max(4, fewest // 2) + spare


@pytest.mark.parametrize("method", METHODS)
def test_a_finished_lane_does_not_change(method):
    """The same lane beside an easy and beside a hard neighbour: the same bits."""
    run = jax.jit(
        jax.vmap(lambda c, e: jaxsns.solve(c, epsilon=e, method=method, max_steps=300))
    )
    pair = COSTS[:2]
    easy = run(pair, jnp.asarray([0.2, 1.0]))
    hard = run(pair, jnp.asarray([0.2, 0.004]))
    assert int(hard.counts.sweeps[1]) > int(easy.counts.sweeps[1])
    np.testing.assert_array_equal(easy.f[0], hard.f[0])
    np.testing.assert_array_equal(easy.g[0], hard.g[0])
    assert int(easy.counts.sweeps[0]) == int(hard.counts.sweeps[0])
    # One that sweeps for longer, at the side of the first where lanes do that.
    longer = run(pair, jnp.asarray([0.2, 0.17]))
    assert int(longer.counts.sweeps[1]) >= int(longer.counts.sweeps[0])
    np.testing.assert_array_equal(easy.f[0], longer.f[0])
    # One too easy for momentum, beside one that has it and one that has not.
    beside = [run(pair, jnp.asarray([2.0, e])) for e in (3.0, 0.1)]
    assert int(beside[0].counts.sweeps[0]) == int(beside[1].counts.sweeps[0])
    np.testing.assert_array_equal(beside[0].f[0], beside[1].f[0])


def test_a_lane_that_goes_on_alone_begins_as_it_would_anyway():
    """In float32, where a neighbour near its tolerance is judged by a pass."""
    costs = COSTS[:2].astype(jnp.float32)
    run = jax.jit(jax.vmap(lambda c, e: jaxsns.solve(c, epsilon=e, tolerance=1e-5)))
    easy = run(costs, jnp.asarray([0.004, 0.5], jnp.float32))
    hard = run(costs, jnp.asarray([0.004, 5e-4], jnp.float32))
    assert int(easy.counts.newton_steps[0]) > 0
    assert int(easy.counts.newton_steps[1]) == 0
    np.testing.assert_array_equal(easy.f[0], hard.f[0])


def test_a_batched_solution_answers_for_all_lanes():
    batch = jax.vmap(lambda c: jaxsns.solve(c, epsilon=0.1))(COSTS)
    points = jnp.asarray(R.normal(size=(5, 72, 2)))
    assert batch.value.shape == batch.transport_cost.shape == batch.gap.shape == (5,)
    assert batch.plan().shape == COSTS.shape
    assert batch.barycentric(points).shape == (5, 70, 2)
    assert batch.apply(points[..., 0]).shape == (5, 70)
    alone = jaxsns.solve(COSTS[3], epsilon=0.1)
    np.testing.assert_allclose(batch.value[3], alone.value, rtol=1e-12)
    np.testing.assert_allclose(
        batch.barycentric(points)[3], alone.barycentric(points[3]), atol=1e-9
    )
    assert "lanes=(5,), CONVERGED: 5" in repr(batch)


def test_lanes_sweep_side_by_side_and_go_on_alone():
    """Easy lanes need one pass and no Newton step, hard ones all that they need."""
    a, b = R.random((5, 70)) + 0.1, R.random((5, 72)) + 0.1
    a[1, 5], b[2, 7] = 0, 0
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    epsilon = np.asarray([0.3, 0.2, 0.2, 0.1, 0.002])
    batch = jax.vmap(lambda *x: jaxsns.solve(*x[:3], epsilon=x[3], tolerance=1e-10))(
        COSTS, jnp.asarray(a), jnp.asarray(b), jnp.asarray(epsilon)
    )
    assert np.all(batch.converged)
    assert np.all((np.asarray(batch.counts.newton_steps) == 0) == (epsilon > 0.01))
    # The kernel, and the check.
    assert np.all((np.asarray(batch.counts.passes) == 2) == (epsilon > 0.01))
    for k in range(5):
        cost = np.asarray(COSTS[k])
        f, g = references.sinkhorn(cost, a[k], b[k], epsilon[k])
        plan = references.plan(cost, f, g, epsilon[k])
        np.testing.assert_allclose(batch.plan()[k], plan, atol=1e-10)
        real = a[k] > 0
        np.testing.assert_allclose(batch.f[k][real], f[real], atol=1e-8)
        assert np.all(np.asarray(batch.f[k][~real]) == -np.inf)
        assert np.all(np.asarray(batch.g[k][b[k] <= 0]) == -np.inf)


def test_lanes_side_by_side_keep_their_status_and_their_neighbours():
    a = np.full((6, 70), 1 / 70)
    a[0, 0], a[2, 3] = -1, np.nan
    steps = jnp.asarray([9, 90, 9, 2, 90, 1])
    costs = jnp.concatenate([COSTS, COSTS[:1].at[0, 4].set(jnp.inf)])
    run = lambda c, a, n: jaxsns.solve(c, a, epsilon=0.2, tolerance=1e-10, max_steps=n)
    batch = jax.vmap(run)(costs, jnp.asarray(a), steps)
    codes = [Status.INVALID_INPUT, Status.CONVERGED, Status.INVALID_INPUT]
    codes += [Status.MAX_STEPS, Status.CONVERGED, Status.INFEASIBLE]
    assert [int(x) for x in batch.status] == codes
    assert np.isnan(np.asarray(batch.f)[[0, 2]]).all()
    for k in (1, 4):
        alone = run(costs[k], jnp.asarray(a[k]), steps[k])
        np.testing.assert_allclose(batch.f[k], alone.f, atol=1e-8)


def test_float32_lanes_side_by_side_are_judged_where_rounding_matters():
    costs = COSTS.astype(jnp.float32)
    batch = jax.vmap(lambda c: jaxsns.solve(c, epsilon=0.2, tolerance=2e-6))(costs)
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.counts.newton_steps) == 0)
    a, b = np.full(70, 1 / 70), np.full(72, 1 / 72)
    for k in range(5):
        true = references.error(
            costs[k], a, b, batch.f[k], batch.g[k], float(np.float32(0.2))
        )
        assert true <= 2e-6


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "margin"), [("float64", 1e-9, 1e-5), ("float32", 1e-3, 3e-3)]
)
def test_the_error_of_lanes_that_swept_is_a_bound_and_near(
    common, dtype, tolerance, margin
):
    """Measured 2e-6 and 1e-3 of the tolerance above the true one, never below."""
    costs = COSTS[:1].repeat(5, 0) if common else COSTS
    costs = costs.astype(dtype)
    b = R.random((5, 72)) + 0.1
    b = (b / b.sum(1, keepdims=True)).astype(dtype)
    epsilon = np.asarray(0.2, dtype)
    run = lambda c, b: jaxsns.solve(c, None, b, epsilon=epsilon, tolerance=tolerance)
    batch = jax.vmap(run, in_axes=(None if common else 0, 0))(
        costs[0] if common else costs, b
    )
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.counts.newton_steps) == 0)
    a = np.full(70, 1 / 70)
    for k in range(5):
        f, g = batch.f[k], batch.g[k]
        true = references.error(costs[k], a, b[k], f, g, float(epsilon))
        # One pass in the dtype of the solve: its sums are rounded.
        error, unit = float(batch.error[k]), float(np.finfo(dtype).eps)
        assert true - 16 * unit <= error <= true + margin * tolerance


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("size", [(70, 72), (5, 7)])
def test_a_batch_of_batches_is_a_larger_batch(size, common):
    """All pairs: lanes of both kinds are one, and none waits for another."""
    costs = COSTS[:, : size[0], : size[1]]
    a = R.random((2, 1 if common else 3, size[0])) + 0.1
    a = jnp.asarray(a / a.sum(-1, keepdims=True))
    costs = costs[0] if common else costs[:3]
    b = R.random((3, size[1])) + 0.1
    b = jnp.asarray(b / b.sum(-1, keepdims=True))
    run = lambda c, a, b: jaxsns.solve(c, a, b, epsilon=0.2, tolerance=1e-10)
    inner = jax.vmap(run, in_axes=(None, None, 0) if common else (0, 0, 0))
    both = jax.vmap(inner, in_axes=(None, 0, None))(costs, a[:, 0] if common else a, b)
    assert both.f.shape == (2, 3, size[0])
    assert np.all(both.converged)
    assert np.all(np.asarray(both.counts.newton_steps) <= 1)
    for i in range(2):
        for j in range(3):
            cost = np.asarray(costs if common else costs[j])
            mine = np.asarray(a[i, 0] if common else a[i, j])
            f, g = references.sinkhorn(cost, mine, np.asarray(b[j]), 0.2)
            plan = references.plan(cost, f, g, 0.2)
            np.testing.assert_allclose(both.plan()[i, j], plan, atol=1e-10)


@pytest.mark.parametrize("size", [(69, 72), (6, 7)])
def test_batches_with_much_in_common_run_in_turn(size, monkeypatch):
    """Epsilons outside, costs inside: here no copy of the costs may be made."""
    monkeypatch.setattr(batching, "LARGEST_COPY", 0)
    costs = COSTS[:2, : size[0], : size[1]]
    inner = jax.vmap(
        lambda c, e: jaxsns.solve(c, epsilon=e, tolerance=1e-10), (0, None)
    )
    epsilons = [0.3, 0.2, 0.01]
    both = jax.vmap(inner, (None, 0))(costs, jnp.asarray(epsilons))
    assert np.all(both.converged)
    a, b = np.full(size[0], 1 / size[0]), np.full(size[1], 1 / size[1])
    for i, epsilon in enumerate(epsilons):
        for j, cost in enumerate(np.asarray(costs)):
            f, g = references.sinkhorn(cost, a, b, epsilon)
            plan = references.plan(cost, f, g, epsilon)
            np.testing.assert_allclose(both.plan()[i, j], plan, atol=1e-10)


def test_masses_and_tolerances_can_be_batched_with_a_shared_cost():
    masses = R.random((3, 70)) + 0.1
    masses = jnp.asarray(masses / masses.sum(1, keepdims=True))
    run = lambda a, tolerance: jaxsns.solve(
        COSTS[0], a, epsilon=0.05, tolerance=tolerance
    )
    batch = jax.vmap(run)(masses, jnp.asarray([1e-2, 1e-6, 1e-10]))
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.error) <= np.asarray([1e-2, 1e-6, 1e-10]))


@pytest.mark.parametrize("epsilon", [0.1, 0.002])
def test_a_shared_cost_gives_the_plans_of_a_loop(epsilon):
    # Large epsilon: all by products of matrices. Small: lanes are left to themselves.
    a, b = R.random((4, 70)) + 0.1, R.random((4, 72)) + 0.1
    a[1, 5], b[2, 7] = 0, 0
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    a, b = jnp.asarray(a), jnp.asarray(b)
    run = lambda a, b: jaxsns.solve(COSTS[0], a, b, epsilon=epsilon, tolerance=1e-10)
    batch = jax.vmap(run)(a, b)
    assert np.all(batch.converged)
    assert bool(jnp.all(batch.counts.newton_steps == 0)) == (epsilon == 0.1)
    # One kernel for all, and a check of each; one that was left to itself needs more.
    assert bool(jnp.all(batch.counts.passes == 2)) == (epsilon == 0.1)
    for lane in range(4):
        alone = run(a[lane], b[lane])
        np.testing.assert_allclose(batch.plan()[lane], alone.plan(), atol=1e-10)
        real = np.asarray(a[lane] > 0)
        np.testing.assert_allclose(batch.f[lane][real], alone.f[real], atol=1e-8)
        assert np.all(np.asarray(batch.f[lane][~real]) == -np.inf)


def test_lanes_with_a_shared_cost_keep_their_status_and_their_neighbours():
    a = np.full((5, 70), 1 / 70)
    a[0, 0] = -1
    a[1] *= 2
    a[2, 3] = np.nan
    epsilon = jnp.asarray([0.1, 0.1, 0.1, 0.1, 0.1])
    run = lambda a, e, steps: jaxsns.solve(
        COSTS[0], a, epsilon=e, tolerance=1e-10, max_steps=steps
    )
    # b is uniform with the total of a, so that doubling a is fine.
    batch = jax.vmap(run)(jnp.asarray(a), epsilon, jnp.asarray([9, 90, 9, 2, 90]))
    codes = [Status.INVALID_INPUT, Status.CONVERGED, Status.INVALID_INPUT]
    codes += [Status.MAX_STEPS, Status.CONVERGED]
    assert [int(x) for x in batch.status] == codes
    assert not np.isnan(np.asarray(batch.f)[[1, 3, 4]]).any()
    mixed = jax.vmap(run, in_axes=(0, 0, None))(
        jnp.asarray(a[3:]), jnp.asarray([0.1, 0.2]), 90
    )
    alone = run(jnp.asarray(a[4]), 0.2, 90)
    assert np.all(mixed.converged)
    np.testing.assert_allclose(mixed.f[1], alone.f, atol=1e-8)
