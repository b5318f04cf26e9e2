"""Batches: every lane as if it were alone.

All tests of five problems of one kind share a program: most of the time is compilation.
"""

import functools

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


A, B = np.full(70, 1 / 70), np.full(72, 1 / 72)


def _one(method, cost, a, b, epsilon, tolerance, steps):
    return jaxsns.solve(
        cost, a, b, epsilon=epsilon, tolerance=tolerance, method=method, max_steps=steps
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _program(method, common, cost, *others):
    run = functools.partial(_one, method)
    return jax.vmap(run, (None if common else 0, 0, 0, 0, 0, 0))(cost, *others)


def _batch(cost=COSTS, a=A, b=B, epsilon=0.1, tolerance=1e-10, steps=1000, method=None):
    """Five lanes of everything; of the costs only if they are not one matrix."""
    dtype = cost.dtype
    lanes = [
        np.broadcast_to(np.asarray(x, dtype), (5, *shape))
        for x, shape in ((a, (70,)), (b, (72,)), (epsilon, ()), (tolerance, ()))
    ]
    steps = np.broadcast_to(steps, 5)
    return _program(method or "auto", cost.ndim == 2, cost, *lanes, steps)


@pytest.mark.parametrize("method", METHODS)
def test_lanes_get_the_answer_and_status_that_they_get_alone(method):
    # The smallest epsilon is for Newton: 20,000 sweeps do not do, nor a tuned warm-up.
    number = 4 if method in ("sns", "sinkhorn") else 5
    epsilons = np.where(np.arange(5) < number, EPSILONS, 1.0)
    batch = _batch(epsilon=epsilons, method=method, steps=20_000)
    for k in range(number):
        alone = jaxsns.solve(
            COSTS[k], epsilon=EPSILONS[k], tolerance=1e-10, method=method
        )
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
    """The same lane beside easy and beside hard neighbours: the same bits."""
    run = lambda own, others: _batch(
        epsilon=[own, *[others] * 4], method=method, steps=300
    )
    easy, hard = run(0.2, 1.0), run(0.2, 0.004)
    assert int(hard.counts.sweeps[1]) > int(easy.counts.sweeps[1])
    np.testing.assert_array_equal(easy.f[0], hard.f[0])
    np.testing.assert_array_equal(easy.g[0], hard.g[0])
    assert int(easy.counts.sweeps[0]) == int(hard.counts.sweeps[0])
    # One that sweeps for longer, at the side of the first where lanes do that.
    longer = run(0.2, 0.17)
    assert int(longer.counts.sweeps[1]) >= int(longer.counts.sweeps[0])
    np.testing.assert_array_equal(easy.f[0], longer.f[0])
    # One too easy for momentum, beside one that has it and one that has not.
    beside = [run(2.0, e) for e in (3.0, 0.1)]
    assert int(beside[0].counts.sweeps[0]) == int(beside[1].counts.sweeps[0])
    np.testing.assert_array_equal(beside[0].f[0], beside[1].f[0])


def test_a_lane_that_goes_on_alone_begins_as_it_would_anyway():
    """In float32, where a neighbour near its tolerance is judged by a pass."""
    costs = COSTS.astype(jnp.float32)
    easy, hard = (
        _batch(costs, epsilon=[0.004, *[other] * 4], tolerance=1e-5)
        for other in (0.5, 5e-4)
    )
    assert int(easy.counts.newton_steps[0]) > 0
    assert int(easy.counts.newton_steps[1]) == 0
    np.testing.assert_array_equal(easy.f[0], hard.f[0])


def test_a_batched_solution_answers_for_all_lanes():
    batch = _batch(epsilon=0.1)
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
    assert "batch=(5,), CONVERGED: 5" in repr(batch)


def test_lanes_sweep_side_by_side_and_go_on_alone():
    """Easy lanes need one pass and no Newton step, hard ones all that they need."""
    a, b = R.random((5, 70)) + 0.1, R.random((5, 72)) + 0.1
    a[1, 5], b[2, 7] = 0, 0
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    epsilon = np.asarray([0.3, 0.2, 0.2, 0.1, 0.002])
    batch = _batch(COSTS, a, b, epsilon)
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
    a = np.full((5, 70), 1 / 70)
    a[0, 0], a[2, 3] = -1, np.nan
    steps = np.array([9, 90, 9, 2, 90])
    batch = _batch(COSTS, a, epsilon=0.2, steps=steps)
    codes = [Status.INVALID_INPUT, Status.CONVERGED, Status.INVALID_INPUT]
    codes += [Status.MAX_STEPS, Status.CONVERGED]
    assert [int(x) for x in batch.status] == codes
    assert np.isnan(np.asarray(batch.f)[[0, 2]]).all()
    a[0], steps[0] = 1 / 70, 1
    infeasible = _batch(COSTS.at[0, 4].set(jnp.inf), a, epsilon=0.2, steps=steps)
    assert [int(x) for x in infeasible.status] == [Status.INFEASIBLE, *codes[1:]]
    for k in (1, 4):
        alone = jaxsns.solve(
            COSTS[k], A, epsilon=0.2, tolerance=1e-10, max_steps=steps[k]
        )
        for found in (batch, infeasible):
            np.testing.assert_allclose(found.f[k], alone.f, atol=1e-8)


def test_float32_lanes_side_by_side_are_judged_where_rounding_matters():
    costs = COSTS.astype(jnp.float32)
    batch = _batch(costs, epsilon=0.2, tolerance=2e-6)
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.counts.newton_steps) == 0)
    for k in range(5):
        true = references.error(
            costs[k], A, B, batch.f[k], batch.g[k], float(np.float32(0.2))
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
    given = costs[0] if common else costs
    batch = _batch(given, b=b, epsilon=epsilon, tolerance=tolerance)
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.counts.newton_steps) == 0)
    for k in range(5):
        f, g = batch.f[k], batch.g[k]
        true = references.error(costs[k], A, b[k], f, g, float(epsilon))
        # One pass in the dtype of the solve: its sums are rounded.
        error, unit = float(batch.error[k]), float(np.finfo(dtype).eps)
        assert true - 16 * unit <= error <= true + margin * tolerance


@pytest.mark.parametrize("common", [True, False])
@pytest.mark.parametrize("size", [(33, 34), (5, 7)])
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
    outer = jax.jit(jax.vmap(inner, in_axes=(None, 0, None)))
    both = outer(costs, a[:, 0] if common else a, b)
    assert both.f.shape == (2, 3, size[0])
    assert np.all(both.converged)
    assert np.all(np.asarray(both.counts.newton_steps) <= 1)
    plans = both.plan()
    for i in range(2):
        for j in range(3):
            cost = np.asarray(costs if common else costs[j])
            mine = np.asarray(a[i, 0] if common else a[i, j])
            f, g = references.sinkhorn(cost, mine, np.asarray(b[j]), 0.2)
            plan = references.plan(cost, f, g, 0.2)
            np.testing.assert_allclose(plans[i, j], plan, atol=1e-10)


@pytest.mark.parametrize("size", [(33, 36), (6, 7)])
def test_batches_with_much_in_common_run_in_turn(size, monkeypatch):
    """Epsilons outside, costs inside: here no copy of the costs may be made."""
    monkeypatch.setattr(batching, "LARGEST_COPY", 0)
    costs = COSTS[:2, : size[0], : size[1]]
    inner = jax.vmap(
        lambda c, e: jaxsns.solve(c, epsilon=e, tolerance=1e-10), (0, None)
    )
    epsilons = [0.3, 0.2, 0.01]
    both = jax.jit(jax.vmap(inner, (None, 0)))(costs, jnp.asarray(epsilons))
    assert np.all(both.converged)
    a, b = np.full(size[0], 1 / size[0]), np.full(size[1], 1 / size[1])
    for i, epsilon in enumerate(epsilons):
        for j, cost in enumerate(np.asarray(costs)):
            f, g = references.sinkhorn(cost, a, b, epsilon)
            plan = references.plan(cost, f, g, epsilon)
            np.testing.assert_allclose(both.plan()[i, j], plan, atol=1e-10)


def test_masses_and_tolerances_can_be_batched_with_a_shared_cost():
    masses = R.random((5, 70)) + 0.1
    masses = masses / masses.sum(1, keepdims=True)
    tolerances = np.asarray([1e-2, 1e-6, 1e-10, 1e-4, 1e-8])
    batch = _batch(COSTS[0], masses, epsilon=0.05, tolerance=tolerances)
    assert np.all(batch.converged)
    assert np.all(np.asarray(batch.error) <= tolerances)


@pytest.mark.parametrize("epsilon", [0.1, 0.002])
def test_a_shared_cost_gives_the_plans_of_a_loop(epsilon):
    # Large epsilon: all by products of matrices. Small: lanes are left to themselves.
    a, b = R.random((5, 70)) + 0.1, R.random((5, 72)) + 0.1
    a[1, 5], b[2, 7] = 0, 0
    a, b = a / a.sum(1, keepdims=True), b / b.sum(1, keepdims=True)
    batch = _batch(COSTS[0], a, b, epsilon)
    assert np.all(batch.converged)
    assert bool(jnp.all(batch.counts.newton_steps == 0)) == (epsilon == 0.1)
    # One kernel for all, and a check of each; one that was left to itself needs more.
    assert bool(jnp.all(batch.counts.passes == 2)) == (epsilon == 0.1)
    plans = batch.plan()
    for lane in range(5):
        alone = jaxsns.solve(
            COSTS[0], a[lane], b[lane], epsilon=epsilon, tolerance=1e-10
        )
        np.testing.assert_allclose(plans[lane], alone.plan(), atol=1e-10)
        real = np.asarray(a[lane] > 0)
        np.testing.assert_allclose(batch.f[lane][real], alone.f[real], atol=1e-8)
        assert np.all(np.asarray(batch.f[lane][~real]) == -np.inf)


def test_lanes_with_a_shared_cost_keep_their_status_and_their_neighbours():
    a = np.full((5, 70), 1 / 70)
    a[0, 0] = -1
    a[1] *= 2
    a[2, 3] = np.nan
    b = np.broadcast_to(B, (5, 72)) * np.asarray([1, 2, 1, 1, 1])[:, None]
    batch = _batch(COSTS[0], a, b, steps=[9, 90, 9, 2, 90])
    codes = [Status.INVALID_INPUT, Status.CONVERGED, Status.INVALID_INPUT]
    codes += [Status.MAX_STEPS, Status.CONVERGED]
    assert [int(x) for x in batch.status] == codes
    assert not np.isnan(np.asarray(batch.f)[[1, 3, 4]]).any()
    mixed = _batch(COSTS[0], epsilon=[0.1, 0.2, 0.1, 0.2, 0.1], steps=90)
    alone = jaxsns.solve(COSTS[0], epsilon=0.2, tolerance=1e-10, max_steps=90)
    assert np.all(mixed.converged)
    np.testing.assert_allclose(mixed.f[1], alone.f, atol=1e-8)
