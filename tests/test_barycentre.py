"""Barycentres: fixed support by Bregman projections, free support by a fixed point."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.optimize import minimize
from scipy.special import logsumexp

import jaxsns
from jaxsns import Status

K, N, M = 3, 12, 9
R = np.random.default_rng(11)
X, Y = R.normal(size=(N, 2)), R.normal(size=(M, 2))
COST = ((X[:, None] - Y[None]) ** 2).sum(-1)
COSTS = COST[None] * np.array([1.0, 0.7, 1.6])[:, None, None]
MASSES = R.random((K, N)) + 0.1
MASSES[1, [3, 8]] = 0
MASSES /= MASSES.sum(1, keepdims=True)
WEIGHTS = np.array([0.2, 0.5, 0.3])


def _solved(costs=COSTS, masses=MASSES, weights=WEIGHTS, **options):
    given = {"epsilon": 0.3, "tolerance": 1e-13, **options}
    return jaxsns.fixed_support_barycentre(costs, masses, weights, **given)


def _exact_error(solution, costs, masses, epsilon):
    """Worst L1 error of both marginals, from the returned arrays alone."""
    f, g, b = (np.asarray(x) for x in (solution.f, solution.g, solution.mass))
    return max(
        references.error(costs[k], masses[k], b, f[k], g[k], epsilon)
        for k in range(len(masses))
    )


@pytest.mark.parametrize("epsilon", [1.0, 0.3, 0.05])
def test_masses_and_potentials_against_a_dense_loop(epsilon):
    b, f, g = references.barycentre(COSTS, MASSES, WEIGHTS, epsilon)
    solution = _solved(epsilon=epsilon).raise_if_failed()
    np.testing.assert_allclose(solution.mass, b, atol=1e-11)
    np.testing.assert_allclose(solution.g, g, atol=1e-9)
    np.testing.assert_allclose(solution.f, f, atol=1e-9)
    np.testing.assert_allclose(WEIGHTS @ np.asarray(solution.g), 0, atol=1e-14)
    exact = _exact_error(solution, COSTS, MASSES, epsilon)
    np.testing.assert_allclose(solution.error, exact, atol=1e-15)


def test_small_epsilon_needs_new_kernels():
    # Exponents of up to 1/epsilon = 2,000: rows vanish on the first kernels.
    epsilon = float(COSTS.max()) / 2000
    solution = _solved(epsilon=epsilon, tolerance=1e-8, max_steps=100_000)
    solution.raise_if_failed()
    assert _exact_error(solution, COSTS, MASSES, epsilon) <= 1e-8
    np.testing.assert_allclose(WEIGHTS @ np.asarray(solution.g), 0, atol=1e-14)


def test_it_is_the_maximum_of_the_dual():
    costs, masses = COSTS[:2, :3, :3], MASSES[::2, :3]
    masses = masses / masses.sum(1, keepdims=True)
    weights, epsilon = np.array([0.6, 0.4]), 0.4

    def potentials(g):
        g = np.stack([g, -g * weights[0] / weights[1]])
        soft = logsumexp((g[:, None] - costs) / epsilon, axis=2)
        return epsilon * (np.log(masses) - soft), g

    def negative(g):
        return -weights @ (potentials(g)[0] * masses).sum(1) + epsilon

    out = minimize(negative, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    f, g = potentials(out.x)
    columns = np.exp((f[0][:, None] + g[0] - costs[0]) / epsilon).sum(0)
    solution = _solved(costs, masses, weights, epsilon=epsilon).raise_if_failed()
    np.testing.assert_allclose(solution.mass, columns, atol=1e-5)
    value = weights @ (np.asarray(solution.f) * masses).sum(1) - epsilon
    np.testing.assert_allclose(value, -out.fun, atol=1e-10)


def test_one_measure_has_a_closed_form():
    # g = 0, so each atom spreads by a softmax of its costs.
    share = np.exp(-COSTS[1] / 0.3)
    share /= share.sum(1, keepdims=True)
    solution = _solved(COSTS[1], MASSES[1:2], None).raise_if_failed()
    np.testing.assert_allclose(solution.mass, MASSES[1] @ share, atol=1e-13)
    np.testing.assert_allclose(solution.g, 0, atol=1e-13)
    assert int(solution.steps) <= 1


def test_shared_costs_and_geometries_are_the_same():
    want = _solved(np.stack([COST] * K))
    for costs in (COST, jaxsns.Dense(jnp.asarray(COST)), jaxsns.PointCloud(X, Y)):
        if isinstance(costs, jaxsns.PointCloud):
            costs = jaxsns.PointCloud(jnp.asarray(X), jnp.asarray(Y))
        got = _solved(costs)
        np.testing.assert_allclose(got.mass, want.mass, atol=1e-12)


def test_translated_gaussians_meet_at_the_weighted_mean():
    grid = np.linspace(-6, 6, 61)
    cost = (grid[:, None] - grid[None]) ** 2
    means = np.array([-2.0, 0.5, 1.5])
    masses = np.exp(-((grid[None] - means[:, None]) ** 2) / (2 * 0.3))
    masses /= masses.sum(1, keepdims=True)
    epsilon = 0.4
    solution = _solved(cost, masses, epsilon=epsilon, tolerance=1e-11)
    solution.raise_if_failed()
    b = np.asarray(solution.mass)
    mean = b @ grid
    np.testing.assert_allclose(mean, WEIGHTS @ means, atol=1e-8)
    # Entropy without a reference measure widens equal Gaussians by epsilon / 2.
    np.testing.assert_allclose(b @ (grid - mean) ** 2, 0.3 + epsilon / 2, rtol=1e-6)


def test_masses_of_other_totals_scale():
    one, five = _solved(), _solved(masses=5 * MASSES, weights=2 * WEIGHTS)
    np.testing.assert_allclose(five.mass, 5 * one.mass, atol=1e-12)


def _parameters():
    return {
        "costs": jnp.asarray(COSTS),
        "masses": jnp.asarray(MASSES),
        "weights": jnp.asarray(WEIGHTS),
        "epsilon": jnp.asarray(0.3, float),  # as its changes: one program
    }


@jax.jit
def _outputs(p):
    masses = p["masses"] / jnp.sum(p["masses"], axis=1, keepdims=True)
    solution = jaxsns.fixed_support_barycentre(
        p["costs"], masses, p["weights"], epsilon=p["epsilon"], tolerance=1e-14
    )
    f = jnp.where(masses > 0, solution.f, 0)
    return solution.mass, f, solution.g


def _direction(seed, p):
    r = np.random.default_rng(seed)
    d = {k: jnp.asarray(r.normal(size=v.shape)) for k, v in p.items()}
    if "masses" in d:
        d["masses"] = d["masses"] * p["masses"]
    return d


def _moved(p, d, step):
    return {k: v + step * d[k] if k in d else v for k, v in p.items()}


def _difference(function, p, d, step):
    """Central difference of fourth order of a function of a dict."""
    values = [function(_moved(p, d, s * step)) for s in (-2, -1, 1, 2)]
    return jax.tree.map(lambda a, b, c, e: (a - 8 * b + 8 * c - e) / 12 / step, *values)


@pytest.mark.parametrize("name", ["costs", "masses", "weights", "epsilon"])
def test_derivatives_against_differences(name):
    p = _parameters()
    d = {k: v if k == name else 0 * v for k, v in _direction(1, p).items()}
    got = jax.jvp(_outputs, (p,), (d,))[1]
    chex.assert_trees_all_close(
        got, _difference(_outputs, p, d, 3e-4), rtol=1e-7, atol=1e-8
    )


def test_reverse_mode_and_second_derivatives():
    p = _parameters()
    d = _direction(2, p)
    r = np.random.default_rng(3)
    weights = [jnp.asarray(r.normal(size=s)) for s in ((M,), (K, N), (K, M))]

    def loss(p):
        mass, f, g = _outputs(p)
        inside = jnp.sum(weights[1] * f) + jnp.sum(weights[2] * g)
        return jnp.sum(weights[0] * mass) + jnp.sum(jnp.sin(mass)) + inside

    # One function for all: most of the time here is compilation.
    both = jax.jit(lambda p: jax.jvp(jax.grad(loss), (p,), (d,)))
    gradient, twice = both(p)
    along = sum(jnp.sum(gradient[k] * d[k]) for k in p)
    np.testing.assert_allclose(along, _difference(loss, p, d, 3e-4), rtol=1e-8)
    expected = _difference(lambda p: both(p)[0], p, d, 3e-4)
    chex.assert_trees_all_close(twice, expected, rtol=1e-6, atol=1e-6)


def test_padding_changes_nothing():
    p = _parameters()
    pad = {
        **p,
        "masses": jnp.pad(p["masses"], ((0, 0), (0, 2))),
        "costs": jnp.pad(p["costs"], ((0, 0), (0, 2), (0, 0)), constant_values=0.1),
    }
    for got, want in zip(_outputs(pad), _outputs(p), strict=True):
        np.testing.assert_allclose(got[..., : want.shape[-1]], want, atol=1e-12)


def test_a_measure_of_weight_zero_is_solved_as_well():
    weights = np.array([0.4, 0.6, 0.0])
    solution = _solved(weights=weights).raise_if_failed()
    two = _solved(COSTS[:2], MASSES[:2], weights[:2])
    np.testing.assert_allclose(solution.mass, two.mass, atol=1e-12)
    assert _exact_error(solution, COSTS, MASSES, 0.3) <= 1e-13


def test_float32():
    single = [x.astype(np.float32) for x in (COSTS, MASSES, WEIGHTS)]
    solution = jaxsns.fixed_support_barycentre(*single, epsilon=np.float32(0.1))
    solution.raise_if_failed()
    assert solution.mass.dtype == jnp.float32
    b = references.barycentre(COSTS, MASSES, WEIGHTS, 0.1)[0]
    np.testing.assert_allclose(solution.mass, b, atol=3e-5)


_TRACED = jax.jit(
    lambda costs, masses, weights, epsilon, tolerance, steps: (
        jaxsns.fixed_support_barycentre(
            costs, masses, weights, epsilon=epsilon, tolerance=tolerance,
            max_steps=steps,
        )
    )
)  # fmt: skip
BAD = {
    "masses negative": ({"masses": -MASSES}, Status.INVALID_INPUT),
    "masses nan": ({"masses": MASSES * np.nan}, Status.INVALID_INPUT),
    "a total of zero": ({"masses": 0 * MASSES}, Status.INVALID_INPUT),
    "totals": (
        {"masses": MASSES * np.array([[1], [1], [1.1]])},
        Status.MASS_MISMATCH,
    ),
    "weights": ({"weights": -WEIGHTS}, Status.INVALID_INPUT),
    "no weight": ({"weights": 0 * WEIGHTS}, Status.INVALID_INPUT),
    "epsilon": ({"epsilon": -0.1}, Status.INVALID_INPUT),
    "tolerance": ({"tolerance": np.nan}, Status.INVALID_INPUT),
    "cost": ({"costs": COSTS * np.nan}, Status.NONFINITE),
}


def _traced(**changes):
    given = {
        "costs": COSTS,
        "masses": MASSES,
        "weights": WEIGHTS,
        "epsilon": 0.3,
        "tolerance": 1e-10,
        "steps": 1000,
        **changes,
    }
    return _TRACED(*given.values())


@pytest.mark.parametrize("name", BAD)
def test_bad_traced_values_become_a_status_and_nan(name):
    changes, status = BAD[name]
    solution = _traced(**changes)
    assert int(solution.status) == status
    for x in (solution.mass, solution.f, solution.g):
        assert np.isnan(np.asarray(x)).all()
    with pytest.raises(jaxsns.NotConvergedError, match=status.name):
        solution.raise_if_failed()


def test_limits_are_said():
    solution = _traced(steps=3)
    assert int(solution.status) == Status.MAX_STEPS
    assert int(solution.steps) == 3
    exact = _exact_error(solution, COSTS, MASSES, 0.3)
    np.testing.assert_allclose(solution.error, exact, rtol=1e-9)
    solution = _traced(tolerance=1e-18, steps=20_000)
    assert int(solution.status) == Status.STALLED
    assert float(solution.error) < 1e-13


def test_lanes_are_those_of_a_loop():
    epsilons = np.array([1.0, 0.3, -1.0, 0.05, 0.3])
    masses = np.stack([MASSES] * 5)
    masses[4] = masses[4][[2, 1, 0]]
    lanes = jax.vmap(_TRACED, in_axes=(None, 0, None, 0, None, None))
    got = lanes(COSTS, masses, WEIGHTS, epsilons, 1e-12, 5000)
    for k, epsilon in enumerate(epsilons):
        want = _traced(masses=masses[k], epsilon=epsilon, tolerance=1e-12, steps=5000)
        one = jax.tree.map(lambda x, k=k: x[k], got)
        assert int(one.status) == int(want.status)
        np.testing.assert_allclose(one.mass, want.mass, atol=1e-12)
    with pytest.raises(jaxsns.NotConvergedError, match="1 of 5"):
        got.raise_if_failed()


WRONG = {
    "masses must have shape": {"masses": MASSES[0]},
    "masses must be finite": {"masses": -MASSES},
    "masses must have a positive total": {"masses": 0 * MASSES},
    "masses must have equal totals": {"masses": MASSES * [[1], [1], [2]]},
    "n = 12": {"masses": MASSES[:, :5] / MASSES[:, :5].sum(1, keepdims=True)},
    "weights must have shape": {"weights": WEIGHTS[:2]},
    "weights must be finite": {"weights": np.array([1.0, np.nan, 1])},
    "K = 3": {"costs": COSTS[:2]},
    "costs must have shape": {"costs": COST[0]},
    "costs must be finite": {"costs": COSTS + np.inf},
    "epsilon must be positive": {"epsilon": 0.0},
    "epsilon must be a scalar": {"epsilon": np.ones(3)},
    "tolerance must be positive": {"tolerance": -1.0},
    "max_steps must be positive": {"max_steps": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_arguments_raise(message):
    with pytest.raises(ValueError, match=message):
        _solved(**WRONG[message])


def test_types_raise():
    with pytest.raises(TypeError, match="masses"):
        _solved(masses=MASSES + 1j)
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda m: _solved(masses=m).raise_if_failed().mass)(MASSES)


# Free support. One atom of the barycentre and one of a measure have no mass. One
# compiled function serves most tests: most of their time is compilation.

FREE_N = 8
POINTS = R.normal(size=(K, FREE_N, 2)) + np.array([0.0, 1.0, -1.0])[:, None, None]
FREE_MASSES = R.random((K, FREE_N)) + 0.2
FREE_MASSES[2, 5] = 0
FREE_MASSES /= FREE_MASSES.sum(1, keepdims=True)
B = np.array([0.3, 0.2, 0.25, 0.25, 0])
START = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [5, 7]])
_FREE_TRACED = jax.jit(
    lambda points, masses, weights, b, epsilon, tolerance, inner, steps: (
        jaxsns.free_support_barycentre(
            points, masses, START, weights, b, epsilon=epsilon, tolerance=tolerance,
            inner_tolerance=inner, max_steps=steps,
        )
    )
)  # fmt: skip
FREE = {
    "points": POINTS,
    "masses": FREE_MASSES,
    "weights": WEIGHTS,
    "b": B,
    "epsilon": 0.1,
    "tolerance": 1e-6,
    "inner": 1e-10,
    "steps": 500,
}


def _free(p):
    masses = p["masses"] / jnp.sum(p["masses"], axis=1, keepdims=True)
    b = p["b"] / jnp.sum(p["b"])
    changes = {"masses": masses, "b": b, "tolerance": 1e-13, "inner": 1e-13}
    return _FREE_TRACED(*{**FREE, **p, **changes}.values())


def _free_parameters():
    names = ("points", "masses", "weights", "b", "epsilon")
    return {k: jnp.asarray(FREE[k]) for k in names}


def test_free_support_against_dense_plans():
    solution = _free(_free_parameters()).raise_if_failed()
    y, b = np.asarray(solution.support)[:-1], B[:-1]
    step = references.support_step(POINTS, FREE_MASSES, y, WEIGHTS, b, 0.1)
    np.testing.assert_allclose(step, y, atol=1e-11)
    # The mean is the weighted mean of the means, whatever the plans are.
    means = np.einsum("kn,knd->kd", FREE_MASSES, POINTS)
    np.testing.assert_allclose(b @ y, WEIGHTS @ means, atol=1e-12)
    np.testing.assert_allclose(solution.support[-1], [5, 7])
    for k in range(K):
        cost = ((POINTS[k][:, None] - y[None]) ** 2).sum(-1)
        f, g = np.asarray(solution.f[k]), np.asarray(solution.g[k])
        error = references.error(cost, FREE_MASSES[k], b, f, g[:-1], 0.1)
        assert error < 2e-13
        assert g[-1] == -np.inf
    # Nothing of it depends on where the origin is.
    moved = _free({**_free_parameters(), "points": jnp.asarray(POINTS + 1e-3)})
    np.testing.assert_allclose(
        moved.support[:-1], solution.support[:-1] + 1e-3, atol=1e-10
    )


def test_free_derivatives_against_differences():
    p = _free_parameters()
    d = _direction(5, p)
    d = {**d, "weights": 0.3 * d["weights"], "b": d["b"] * p["b"]}
    d["epsilon"] = 0.1 * d["epsilon"]
    r = np.random.default_rng(6)
    shapes = (START.shape, (K, FREE_N), (K, len(B)))
    weights = [jnp.asarray(r.normal(size=s)) for s in shapes]

    def loss(p):
        out = _free(p)
        f, g = (jnp.where(jnp.isfinite(x), x, 0) for x in (out.f, out.g))
        inside = jnp.sum(weights[1] * f) + jnp.sum(weights[2] * g)
        return jnp.sum(weights[0] * jnp.sin(out.support)) + inside

    gradient = jax.jit(jax.grad(loss))(p)
    for name in p:
        alone = {k: v if k == name else 0 * v for k, v in d.items()}
        along = jnp.sum(gradient[name] * d[name])
        np.testing.assert_allclose(
            along, _difference(loss, p, alone, 3e-4), rtol=1e-6, atol=1e-8
        )


FREE_BAD = {
    "epsilon": (-1.0, Status.INVALID_INPUT),
    "tolerance": (np.nan, Status.INVALID_INPUT),
    "masses": (FREE_MASSES * [[1], [1], [2]], Status.MASS_MISMATCH),
    "weights": (-WEIGHTS, Status.INVALID_INPUT),
    "b": (2 * B, Status.MASS_MISMATCH),
    "points": (POINTS * np.nan, Status.NONFINITE),
}


def test_free_statuses():
    for name, (value, status) in FREE_BAD.items():
        solution = _FREE_TRACED(*{**FREE, name: value}.values())
        assert int(solution.status) == status, name
        assert np.isnan(np.asarray(solution.support)).all(), name
    solution = _FREE_TRACED(*{**FREE, "steps": 2}.values())
    assert int(solution.status) == Status.MAX_STEPS
    assert int(solution.steps) == 2
    # The support stands still, but no plan can be that exact.
    solution = _FREE_TRACED(*{**FREE, "inner": 1e-19}.values())
    assert int(solution.status) == Status.STALLED
    assert float(solution.error) <= 1e-6
    solution = _FREE_TRACED(*{**FREE, "tolerance": 1e-19, "inner": 1e-12}.values())
    assert int(solution.status) == Status.STALLED


def test_free_lanes_are_those_of_a_loop():
    epsilons = np.array([0.1, -1.0, 0.4])
    batch = [*FREE.values()]
    batch[4] = epsilons
    axes = (None, None, None, None, 0, None, None, None)
    got = jax.vmap(_FREE_TRACED, in_axes=axes)(*batch)
    for k, epsilon in enumerate(epsilons):
        want = _FREE_TRACED(*{**FREE, "epsilon": epsilon}.values())
        assert int(got.status[k]) == int(want.status)
        np.testing.assert_allclose(got.support[k], want.support, atol=1e-9)


FREE_WRONG = {
    "points must have shape": {"points": POINTS[0]},
    "to match masses": {"points": POINTS[:2]},
    "points must be finite": {"points": POINTS * np.nan},
    "start must have shape": {"start": START[0]},
    "d = 2": {"start": START[:, :1]},
    "b must have shape": {"b": B[:2]},
    "b must be finite": {"b": -B},
    "b must have the total": {"b": 2 * B},
    "inner_tolerance must be positive": {"inner_tolerance": 0.0},
    "max_steps must be positive": {"max_steps": -1},
}


@pytest.mark.parametrize("message", FREE_WRONG)
def test_free_bad_arguments_raise(message):
    given = {"points": POINTS, "masses": FREE_MASSES, "start": START, "b": B}
    given = {**given, "epsilon": 0.1, **FREE_WRONG[message]}
    with pytest.raises(ValueError, match=message):
        jaxsns.free_support_barycentre(**given)


@pytest.mark.parametrize("offset", [0, 30, 300])
def test_the_error_is_that_of_what_comes_back_whatever_is_added_to_costs(offset):
    """Measured within 0.003 of the tolerance; 1.9 where f + g was rounded first."""
    r = np.random.default_rng(2)
    x, y, masses = r.random((3, 20, 2)), r.random((25, 2)), r.random((3, 20))
    costs = ((x[:, :, None] - y[None, None]) ** 2).sum(-1) + offset
    costs = costs.astype(np.float32)
    masses = (masses / masses.sum(1, keepdims=True)).astype(np.float32)
    s = jaxsns.fixed_support_barycentre(
        costs, masses, epsilon=np.float32(0.05), tolerance=np.float32(1e-4)
    )
    wide = np.longdouble
    f, g, mass = (np.asarray(v, wide) for v in (s.f, s.g, s.mass))
    costs = costs.astype(wide)
    plans = np.exp((f[:, :, None] + g[:, None] - costs) / wide(np.float32(0.05)))
    true = np.abs(plans.sum(2) - masses).sum(1) + np.abs(plans.sum(1) - mass).sum(1)
    true = float(np.max(true / masses.sum(1)))
    assert abs(float(s.error) - true) <= 0.04e-4
