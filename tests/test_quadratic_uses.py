"""What is built on quadratic problems: distances, barycentres, annealing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratic_references as definition

from jaxsns import PointCloud
from jaxsns.quadratic import (
    gromov_wasserstein_divergence,
    solve_quadratic,
    space_barycentre,
)

N, M, D = 6, 5, 2
R = np.random.default_rng(0)
MASSES = R.dirichlet(np.full(N, 5.0), size=2)
B = R.dirichlet(np.full(M, 5.0))
FEATURES, FIRST = R.normal(size=(2, N, D)), R.normal(size=(M, D))


def squares(x):
    return np.sum((x[..., :, None, :] - x[..., None, :, :]) ** 2, axis=-1)


COSTS = np.exp(-squares(R.normal(size=(2, N, 2))))
START = np.exp(-squares(R.normal(size=(M, 2))))
OPTIONS = {"epsilon": 0.1, "method": "sinkhorn"}
TIGHT = OPTIONS | {"tolerance": 1e-11, "inner_tolerance": 1e-12}


def plans(cost, features, loss):
    """Plans from both spaces to a third, of single solves."""
    for k in range(2):
        more = {}
        if features is not None:
            more = {"linear": PointCloud(FEATURES[k], features)}
        out = solve_quadratic(
            COSTS[k], cost, MASSES[k], B, loss=loss, **more, **OPTIONS
        )
        yield np.asarray(out.plan())


@pytest.mark.parametrize("loss", ["square", "kl"])
def test_a_step_of_a_barycentre_takes_the_best_costs_for_its_plans(loss):
    weights = np.asarray([1.0, 3.0])
    out = space_barycentre(
        COSTS, MASSES, START, weights, b=B, loss=loss, max_steps=1, **OPTIONS
    )
    given = list(plans(START, None, loss))
    total = lambda c: sum(
        w * definition.quadratic(x, c, p, getattr(definition, loss))
        for w, x, p in zip(weights, COSTS, given, strict=True)
    )
    cost = np.asarray(out.cost)
    for _ in range(3):
        change = R.normal(size=cost.shape) * cost * 1e-4
        change = change + change.T
        ends = total(cost + change), total(cost - change)
        assert min(ends) > total(cost)
        # Stationary up to the marginal error of the plans.
        assert abs(ends[0] - ends[1]) < 1e-3 * (sum(ends) - 2 * total(cost))
    wanted = sum(w * p.T @ x @ p for w, x, p in zip(weights, COSTS, given, strict=True))
    np.testing.assert_allclose(cost, wanted / 4 / np.outer(B, B), rtol=1e-6)


def test_fused_barycentres_move_features_and_settle():
    once = space_barycentre(
        COSTS, MASSES, START, b=B, features=FEATURES, start_features=FIRST,
        alpha=0.5, max_steps=1, **OPTIONS,
    )  # fmt: skip
    given = plans(START, FIRST, "square")
    wanted = sum(p.T @ z / 2 for p, z in zip(given, FEATURES, strict=True)) / B[:, None]
    np.testing.assert_allclose(once.features, wanted, rtol=1e-6)
    out = space_barycentre(
        COSTS, MASSES, START, b=B, features=FEATURES, start_features=FIRST,
        alpha=0.5, **OPTIONS,
    )  # fmt: skip
    assert bool(out.converged)
    assert int(out.steps) > 1
    moved = list(plans(out.cost, out.features, "square"))
    again = sum(p.T @ x @ p / 2 for p, x in zip(moved, COSTS, strict=True))
    np.testing.assert_allclose(out.cost, again / np.outer(B, B), atol=1e-4)


BAD = [
    ("b must have shape", {"b": np.ones(3)}),
    ("b must have the total", {"b": 2 * B}),
    ("b must be finite and >= 0", {"b": -B}),
    ("go together", {"features": FEATURES}),
    ("features must have shape", {"features": FEATURES[0], "start_features": FIRST}),
    ("start_features must", {"features": FEATURES, "start_features": FIRST[:2]}),
]


@pytest.mark.parametrize(("message", "more"), BAD)
def test_bad_input_of_barycentres_names_the_argument(message, more):
    with pytest.raises(ValueError, match=message):
        space_barycentre(COSTS, MASSES, START, **more, **OPTIONS)


def test_distances_are_roots_with_a_derivative():
    solve = lambda s: solve_quadratic(s * COSTS[0], START, MASSES[0], B, **TIGHT)
    solution = solve(1.0)
    wanted = definition.quadratic(COSTS[0], START, np.asarray(solution.plan()))
    np.testing.assert_allclose(solution.distance, np.sqrt(wanted), rtol=1e-9)
    slope = jax.jvp(lambda s: solve(s).distance, (1.0,), (1.0,))[1]
    ends = solve(1 + 1e-5).distance, solve(1 - 1e-5).distance
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_a_fused_divergence_compares_features_within_each_space():
    z = jnp.asarray(FEATURES[0])
    cloud, masses = PointCloud(z, z), MASSES[0]
    same = gromov_wasserstein_divergence(
        COSTS[0], COSTS[0], masses, masses, linear=cloud, alpha=0.5,
        init="eccentricity", **TIGHT | {"epsilon": 0.5},
    )  # fmt: skip
    assert bool(same.converged)
    np.testing.assert_allclose(same.value, 0, atol=1e-10)
    assert float(same.distance) < 1e-4
    np.testing.assert_allclose(same.xx.value, same.yy.value, rtol=1e-9)
    with pytest.raises(TypeError, match="linear must be a PointCloud"):
        gromov_wasserstein_divergence(
            COSTS[0], COSTS[0], linear=np.zeros((N, N)), **OPTIONS
        )


def test_annealing_counts_its_work_and_ends_no_higher_here():
    plain = solve_quadratic(COSTS[0], START, MASSES[0], B, **TIGHT | {"epsilon": 0.01})
    options = TIGHT | {"epsilon": 0.01, "anneal": (0.1, 0.03)}
    annealed = solve_quadratic(COSTS[0], START, MASSES[0], B, **options)
    assert bool(annealed.converged)
    assert float(annealed.value) <= float(plain.value) + 1e-9
    short = options | {"max_steps": 1}
    assert int(solve_quadratic(COSTS[0], START, MASSES[0], B, **short).steps) == 3
    for bad, message in ((0.1, "shape"), ((0.1, -1.0), "positive")):
        with pytest.raises(ValueError, match=f"anneal must .*{message}"):
            solve_quadratic(COSTS[0], START, epsilon=0.1, anneal=bad)
