"""Batches: every lane as if it were alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import Status

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
        assert abs(int(batch.counts.sweeps[k]) - int(alone.counts.sweeps)) <= max(
            4, int(alone.counts.sweeps) // 2
        )


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
    # One kernel for all lanes; a lane that was left to itself needs more.
    assert bool(jnp.all(batch.counts.passes == 1)) == (epsilon == 0.1)
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
