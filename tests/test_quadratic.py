"""Gromov-Wasserstein against its definition, loops in NumPy and differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import quadratic_references as definition

from jaxsns import Grid, PointCloud, Status
from jaxsns.quadratic import (
    LowRank,
    gromov_wasserstein_divergence,
    match_graphs,
    quadratic_map,
    solve_quadratic,
    space_barycentre,
)
from jaxsns.quadratic.iterate import iterate

N, M = 6, 5
EPSILON, ALPHA = 0.3, 0.6
TIGHT = {"tolerance": 1e-12, "inner_tolerance": 1e-13}


def squares(x):
    return np.sum((x[:, None] - x[None]) ** 2, axis=-1)


def factors(x):
    one, norm = jnp.ones_like(x[:, :1]), jnp.sum(x**2, axis=1, keepdims=True)
    left = jnp.concatenate([norm, one, -2 * x], axis=1)
    return LowRank(left, jnp.concatenate([one, norm, x], axis=1))


def data():
    r = np.random.default_rng(3)
    a, b = r.dirichlet(np.full(N, 5.0)), r.dirichlet(np.full(M, 5.0))
    return {
        "x": np.sqrt(squares(r.normal(size=(N, 2)))),
        "y": squares(r.normal(size=(M, 3))) / 2,
        "a": a,
        "b": b,
        "linear": r.uniform(size=(N, M)),
        "epsilon": np.asarray(EPSILON),
        "alpha": np.asarray(ALPHA),
    }


DATA = data()
WEIGHTS = np.random.default_rng(4).normal(size=(N, M))
TARGETS = np.random.default_rng(5).normal(size=(M, 2))


def solve_data(given, **options):
    given = {k: jnp.asarray(v) for k, v in given.items()}
    places = [given.pop(k) for k in ("x", "y", "a", "b")]
    return solve_quadratic(*places, **given, **options)


def functionals(solution):
    """Value, plan, potentials and projection, a number each."""
    w = jnp.asarray(WEIGHTS, solution.f.dtype)
    rows = jnp.sum(w, axis=1)
    means = solution.barycentric(jnp.asarray(TARGETS, solution.f.dtype))
    return jnp.stack(
        [
            solution.value,
            jnp.sum(w * solution.plan()),
            jnp.sum(rows * solution.f) + jnp.sum(solution.g**2),
            jnp.sum(means**2),
        ]
    )


@jax.jit
def balanced(given):
    solution = solve_data(given, **TIGHT)
    return functionals(solution), solution.status


@jax.jit
def balanced_tangent(given, tangent):
    return jax.jvp(lambda q: balanced(q)[0], (given,), (tangent,))[1]


def direction(name, value, r):
    """Symmetric for costs within a space, of total zero for masses."""
    d = r.normal(size=np.shape(value))
    if name in ("x", "y"):
        d = d + d.T
    if name in ("a", "b"):
        d = value * (d - np.sum(d * value))
    return d


def difference(function, given, tangent, step=1e-5):
    move = lambda s: {k: given[k] + s * tangent[k] for k in given}
    return (function(move(step)) - function(move(-step))) / (2 * step)


def test_plan_potentials_and_value_are_those_of_a_loop_in_numpy():
    solution = solve_data(DATA, **TIGHT)
    plan, f, g = definition.gromov(**DATA)
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.plan(), plan, atol=1e-12)
    np.testing.assert_allclose(solution.f, f, atol=1e-10)
    np.testing.assert_allclose(solution.g, g, atol=1e-10)
    keep = {k: DATA[k] for k in ("x", "y", "epsilon", "linear", "alpha")}
    wanted = definition.objective(plan=plan, **keep)
    np.testing.assert_allclose(solution.value, wanted, rtol=1e-12)
    np.testing.assert_allclose(
        solution.quadratic_cost, definition.quadratic(DATA["x"], DATA["y"], plan), 1e-11
    )
    np.testing.assert_allclose(
        solution.cost,
        definition.cost(DATA["x"], DATA["y"], plan, DATA["linear"], ALPHA),
        rtol=1e-10,
    )
    assert "CONVERGED" in repr(solution)
    assert max(map(len, repr(solution).splitlines())) <= 79
    solution.raise_if_failed()


def test_an_unfinished_solve_says_so_and_changes_no_program():
    before = None
    for steps, tolerance in ((3, 1e-12), (2, 1e-9)):
        solution = solve_data(DATA, max_steps=steps, tolerance=tolerance)
        assert int(solution.status) == Status.MAX_STEPS
        assert int(solution.steps) == steps
        size = iterate._cache_size()
        assert before is None or size == before
        before = size
    with pytest.raises(RuntimeError, match="not converged: error"):
        solution.raise_if_failed()


@pytest.mark.parametrize("name", list(DATA))
def test_derivatives_are_differences_of_tight_solves(name):
    r = np.random.default_rng(6)
    tangent = {k: np.zeros_like(v) for k, v in DATA.items()}
    tangent[name] = direction(name, DATA[name], r)
    wanted = difference(lambda q: balanced(q)[0], DATA, tangent)
    got = balanced_tangent(DATA, tangent)
    np.testing.assert_allclose(got, wanted, rtol=2e-6, atol=2e-7)


def test_reverse_is_forward_and_the_moving_cost_counts():
    r = np.random.default_rng(7)
    reverse = jax.jit(jax.jacrev(lambda q: balanced(q)[0]))(DATA)
    tangent = {k: direction(k, v, r) for k, v in DATA.items()}
    inner = lambda u, v: np.sum(u * v, axis=tuple(range(1, u.ndim)))
    total = sum(inner(np.asarray(reverse[k]), tangent[k]) for k in DATA)
    np.testing.assert_allclose(total, balanced_tangent(DATA, tangent), rtol=1e-8)
    np.testing.assert_allclose(
        reverse["x"], jnp.swapaxes(reverse["x"], 1, 2), atol=1e-12
    )
    # The common error: the derivative of the last linear problem at a fixed cost C(P).
    solution = solve_data(DATA, **TIGHT)
    fixed = jax.grad(lambda q: jnp.sum(WEIGHTS * stopped(q, solution)))(DATA["linear"])
    assert np.abs(fixed - reverse["linear"][1]).max() > 0.05 * np.abs(fixed).max()


def stopped(linear, solution):
    """Plan with the gradient stopped at the quadratic part of the cost."""
    from jaxsns import solve

    held = jax.lax.stop_gradient(solution.cost - (1 - ALPHA) * DATA["linear"])
    cost = held + (1 - ALPHA) * linear
    return solve(cost, DATA["a"], DATA["b"], epsilon=EPSILON).plan()


def test_vmap_and_bad_traced_input_by_lane():
    lanes = {k: np.stack([v, v, v]) for k, v in DATA.items()}
    lanes["alpha"] = np.asarray([ALPHA, 1.5, 0.5])
    lanes["x"][2, 0, 1] += 0.1  # not symmetric
    lanes = jax.jit(jax.vmap(lambda q: solve_data(q, **TIGHT)))(lanes)
    bad = Status.INVALID_INPUT
    assert list(lanes.status) == [Status.CONVERGED, bad, bad]
    alone = solve_data(DATA, **TIGHT)
    plans = lanes.plan()
    np.testing.assert_allclose(plans[0], alone.plan(), atol=1e-12)
    np.testing.assert_allclose(lanes.value[0], alone.value, rtol=1e-12)
    np.testing.assert_allclose(lanes.quadratic_cost[0], alone.quadratic_cost, 1e-11)
    np.testing.assert_allclose(lanes.cost[0], alone.cost, rtol=1e-11)
    assert np.isnan(plans[1:]).all()
    assert np.isnan(lanes.value[1:]).all()
    assert "INVALID_INPUT: 2" in repr(lanes)


def test_float32():
    given = {k: np.asarray(v, np.float32) for k, v in DATA.items()}
    solution = solve_data(given)
    assert bool(solution.converged)
    assert solution.f.dtype == jnp.float32
    plan = definition.gromov(**DATA)[0]
    np.testing.assert_allclose(solution.plan(), plan, atol=3e-4)
    np.testing.assert_allclose(solution.value, balanced(DATA)[0][0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["matrices", "points", "factors"])
def test_costs_of_any_size_fit_into_float32(kind):
    # Coordinates in pixels: squares of their costs would pass for forbidden pairs.
    # Those of 1e-6 would underflow.
    r = np.random.default_rng(6)
    x, y = (jnp.asarray(r.normal(size=(k, 2)), jnp.float32) for k in (N, M))
    weights = WEIGHTS.astype(np.float32)

    def run(x, length):
        spaces = [PointCloud(v, v) for v in (length * x, length * y)]
        unit = length**4
        options = {"linear": unit * jnp.ones((1, M), jnp.float32) * x[:, :1]}
        if kind == "matrices":
            spaces = [cloud.dense().cost for cloud in spaces]
            options |= {"rho_a": unit, "rho_b": 2 * unit}
        if kind == "factors":
            spaces[0] = factors(length * x)
        out = solve_quadratic(*spaces, epsilon=unit, init="eccentricity", **options)
        numbers = (out.f, out.g, out.value, out.cost, out.quadratic_cost, out.epsilon)
        numbers = [number / unit for number in numbers]
        return jnp.sum(out.plan() * weights), (numbers, out.plan(), out.status)

    slope = jax.jit(jax.grad(run, has_aux=True))
    near, (wanted, plan, _) = slope(x, jnp.float32(1))
    for length in (2.0**10, 2.0**-20):
        far, (found, moved, status) = slope(x, jnp.float32(length))
        assert int(status) == Status.CONVERGED
        np.testing.assert_allclose(moved, plan, rtol=0, atol=1e-7)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(far, near, rtol=1e-4, atol=1e-6)


CASES = {
    "unbalanced": {"rho_a": 1.0, "rho_b": 2.0},
    "semi-relaxed": {"rho_b": 2.0},
    "partial": {"share": 0.7},
}


@pytest.mark.parametrize("case", list(CASES))
def test_relaxed_plans_are_stationary_and_differentiable(case):
    numbers = {k: jnp.asarray(v) for k, v in CASES[case].items()}
    given = dict(DATA, a=1.3 * DATA["a"])
    keep = (given["x"], given["y"])

    def run(q):
        solution = solve_data(q, **TIGHT)
        return functionals(solution), solution.plan(), solution.linear.plan()

    both = jax.jit(lambda q, t: jax.jvp(run, (q,), (t,)))
    r = np.random.default_rng(8)
    at = {**given, **numbers}
    tangent = {k: direction(k, v, r) for k, v in at.items()}
    (out, plan, extended), (moved, _, _) = both(at, tangent)
    zero = {k: np.zeros_like(v) for k, v in at.items()}
    wanted = difference(lambda q: both(q, zero)[0][0], at, tangent)
    np.testing.assert_allclose(moved, wanted, rtol=2e-6, atol=2e-7)
    plan = np.asarray(plan)
    if case == "partial":
        np.testing.assert_allclose(plan.sum(), 0.7, rtol=1e-10)
        assert (plan.sum(1) <= given["a"]).all()
        assert (plan.sum(0) <= given["b"]).all()
        value = definition.objective(*keep, plan, 0.0, given["linear"], ALPHA)
        value += EPSILON * definition.entropy(np.asarray(extended))
        np.testing.assert_allclose(out[0], value, rtol=1e-11)
        return
    rhos = [CASES[case].get(k) for k in ("rho_a", "rho_b")]
    objective = lambda p: definition.unbalanced(
        *keep, given["a"], given["b"], p, EPSILON, *rhos, given["linear"], ALPHA
    )
    np.testing.assert_allclose(out[0], objective(plan), rtol=1e-11)
    for _ in range(3):
        d = 1e-4 * r.normal(size=plan.shape) * plan
        if case == "semi-relaxed":
            np.testing.assert_allclose(plan.sum(1), given["a"], rtol=1e-10)
            d -= plan * (d.sum(1) / plan.sum(1))[:, None]
        slope = (objective(plan + d) - objective(plan - d)) / (2 * np.abs(d).sum())
        assert abs(slope) < 1e-7


def test_penalised_derivatives_are_those_of_the_matrices():
    r = np.random.default_rng(14)
    x, y = (jnp.asarray(r.normal(size=(k, 2))) for k in (N, M))
    given = {k: DATA[k] for k in ("a", "b", "linear")}

    def run(made, points):
        x, y = points
        spaces = PointCloud(x, x), factors(y)
        if made:
            spaces = [jnp.sum((v[:, None] - v[None]) ** 2, axis=-1) for v in points]
        options = {"epsilon": 1.0, "rho_a": 3.0, "rho_b": 4.0, "init": "eccentricity"}
        solution = solve_quadratic(*spaces, **given, **options, **TIGHT)
        return jnp.sum(functionals(solution)), solution.status

    slopes = [jax.grad(lambda p, m=m: run(m, p)[0])((x, y)) for m in (True, False)]
    assert int(run(False, (x, y))[1]) == Status.CONVERGED
    for one, other in zip(*slopes, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-7, atol=1e-8)


def test_a_marginal_that_is_exact_fixes_the_mass():
    # Averaged with the mass of the last plan it would approach slowly, unseen.
    given = dict(DATA, a=1.3 * DATA["a"], rho_b=2.0)
    solution = solve_data(given, max_steps=2, method="sinkhorn")
    epsilon = solution.linear.problem.epsilon
    np.testing.assert_allclose(epsilon, 1.3 * EPSILON, rtol=1e-3)


def test_points_without_mass_are_not_there():
    wide = lambda v, *widths: np.pad(v, widths, constant_values=0.7)
    padded = dict(
        DATA,
        x=wide(DATA["x"], (0, 1), (0, 1)),
        a=np.append(DATA["a"], 0),
        linear=wide(DATA["linear"], (0, 1), (0, 0)),
    )

    def run(linear):
        solution = solve_data(dict(padded, linear=linear), **TIGHT)
        kept = jnp.sum(WEIGHTS * solution.plan()[:-1]) + solution.value
        return kept, solution

    slope, solution = jax.jit(jax.grad(run, has_aux=True))(padded["linear"])
    alone = solve_data(DATA, **TIGHT)
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.plan()[:-1], alone.plan(), atol=1e-12)
    np.testing.assert_allclose(solution.value, alone.value, rtol=1e-12)
    np.testing.assert_array_equal(solution.plan()[-1], 0)
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[-1], 0)


def test_infinite_rho_is_equality():
    soft = solve_data(dict(DATA, rho_a=np.inf, rho_b=np.inf), **TIGHT)
    np.testing.assert_allclose(soft.plan(), definition.gromov(**DATA)[0], atol=1e-12)


def test_kl_loss():
    r = np.random.default_rng(9)
    kernel = lambda x: np.exp(-squares(x) / 4)
    x, y = kernel(r.normal(size=(N, 2))), kernel(r.normal(size=(M, 2)))
    masses = DATA["a"], DATA["b"]
    solution = solve_quadratic(x, y, *masses, epsilon=0.05, loss="kl", **TIGHT)
    plan, f, _ = definition.gromov(x, y, *masses, 0.05, loss=definition.kl)
    np.testing.assert_allclose(solution.plan(), plan, atol=1e-11)
    np.testing.assert_allclose(solution.f, f, atol=1e-9)
    value = definition.objective(x, y, plan, 0.05, loss=definition.kl)
    np.testing.assert_allclose(solution.value, value, rtol=1e-10)
    with pytest.raises(ValueError, match="entries of y must be positive"):
        solve_quadratic(x, squares(TARGETS), epsilon=0.05, loss="kl")


@functools.cache
def clouds():
    r = np.random.default_rng(10)
    x, y = (jnp.asarray(r.normal(size=(k, d))) for k, d in ((9, 2), (8, 3)))
    fx, fy = (jnp.asarray(r.normal(size=(k, 2))) for k in (9, 8))
    return x, y, fx, fy


def on_clouds(streamed, kind, **changed):
    x, y, fx, fy = clouds()
    given = {"x": x, "y": y, "fx": fx, "fy": fy, "epsilon": 1.0, "alpha": ALPHA}
    x, y, fx, fy, epsilon, alpha = (given | changed).values()
    cloud = functools.partial(PointCloud, streamed=streamed)
    spaces, linear = (cloud(x, x), cloud(y, y)), cloud(fx, fy)
    if kind == "factors":
        spaces = (factors(x), spaces[1])
    start = jax.lax.stop_gradient((x[:, 0], y[:, 0]))
    options = {"linear": linear, "alpha": jnp.asarray(alpha), "init": start}
    return solve_quadratic(*spaces, epsilon=jnp.asarray(epsilon), **options, **TIGHT)


@pytest.mark.parametrize("kind", ["points", "factors"])
def test_streamed_is_dense(kind):
    dense = on_clouds(False, "points")
    streamed = on_clouds(True, kind)
    assert bool(streamed.converged)
    np.testing.assert_allclose(streamed.plan(), dense.plan(), atol=1e-11)
    np.testing.assert_allclose(streamed.f, dense.f, atol=1e-9)
    np.testing.assert_allclose(streamed.g, dense.g, atol=1e-9)
    np.testing.assert_allclose(streamed.value, dense.value, rtol=1e-10)
    np.testing.assert_allclose(streamed.quadratic_cost, dense.quadratic_cost, rtol=1e-9)
    np.testing.assert_allclose(streamed.cost, dense.cost, atol=1e-8)


@pytest.mark.parametrize("kind", ["points", "factors"])
def test_streamed_derivatives_are_dense_ones(kind):
    x, y, fx, _ = clouds()
    at = {
        "x": x,
        "y": y,
        "fx": fx,
        "epsilon": jnp.ones(()),
        "alpha": jnp.asarray(ALPHA),
    }

    def out(streamed, q):
        solution = on_clouds(streamed, kind if streamed else "points", **q)
        means = solution.barycentric(clouds()[1])
        return solution.value + jnp.sum(jnp.sin(means)) + jnp.sum(solution.f**2)

    # Not jitted: the solves are programs that test_streamed_is_dense compiled.
    both = [jax.grad(functools.partial(out, s))(at) for s in (True, False)]
    for name in at:
        one, other = both[0][name], both[1][name]
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7, err_msg=name)


def test_streamed_forms_nothing_of_the_size_of_the_plan():
    x, y = (jnp.zeros((k, 2)) for k in (70_000, 60_000))
    run = lambda x, y: solve_quadratic(
        PointCloud(x, x), PointCloud(y, y), epsilon=1.0
    ).value
    text = str(jax.make_jaxpr(run)(x, y))
    assert "70000,60000" not in text
    assert "60000,70000" not in text


def test_isometry_costs_nothing_and_is_found():
    r = np.random.default_rng(11)
    x = r.normal(size=(N, 2)) * [1.0, 0.4]
    order = r.permutation(N)
    turn = np.linalg.qr(r.normal(size=(2, 2)))[0]
    cost, other = (jnp.asarray(squares(z)) for z in (x, x[order] @ turn))
    found, solution = match_graphs(cost, other, epsilon=0.02, init="eccentricity")
    assert bool(solution.converged)
    assert list(order[found]) == list(range(N))
    assert float(solution.quadratic_cost) < 1e-6
    out = gromov_wasserstein_divergence(cost, other, epsilon=0.02, init="eccentricity")
    assert bool(out.converged)
    np.testing.assert_allclose(out.value, 0, atol=1e-9)


def test_random_starts_find_the_best_permutation():
    r = np.random.default_rng(12)
    x, y = (np.sqrt(squares(r.normal(size=(N, 2)))) for _ in range(2))
    best = solve_quadratic(
        x, y, epsilon=0.01, init="random", key=jax.random.key(0), starts=64,
        tolerance=1e-6, inner_tolerance=1e-8,
    )  # fmt: skip
    assert bool(best.converged)
    # A blurred plan may cost less than the permutation by a few epsilon.
    wanted = definition.best_permutation(x, y)
    np.testing.assert_allclose(best.quadratic_cost, wanted, atol=0.02)


def test_map_of_the_points_themselves_is_the_projection():
    solution = solve_data(DATA, **TIGHT)
    got = quadratic_map(solution, DATA["x"], TARGETS, linear=DATA["linear"])
    np.testing.assert_allclose(got, solution.barycentric(TARGETS), atol=1e-10)
    with pytest.raises(ValueError, match="if, and only if"):
        quadratic_map(solution, DATA["x"], TARGETS)


def test_barycentre_of_copies_is_the_space():
    r = np.random.default_rng(13)
    x = r.normal(size=(N, 2)) * [1.0, 0.4]
    cost = squares(x)
    copies = np.stack([cost, cost])
    masses = np.full((2, N), 1 / N)
    out = space_barycentre(
        copies, masses, cost, epsilon=0.01, init="eccentricity", tolerance=1e-4
    )
    assert bool(out.converged)
    np.testing.assert_allclose(out.cost, cost, atol=1e-3)


LINE = np.arange(3.0)[:, None]
BAD = [
    ("square matrix", {"x": np.zeros((3, 4))}),
    ("x must be symmetric", {"x": np.arange(9.0).reshape(3, 3)}),
    ("y must be finite", {"y": np.full((2, 2), np.inf)}),
    ("a must have shape", {"a": np.ones(2) / 2}),
    ("equal totals", {"a": np.ones(3), "b": np.ones(2)}),
    ("alpha must be in", {"linear": np.zeros((3, 2)), "alpha": 1.2}),
    ("alpha weighs", {"alpha": 0.5}),
    ("linear must have shape", {"linear": np.zeros((2, 3))}),
    ("rho_a must be positive", {"rho_a": -1.0}),
    ("rho_b must be a scalar", {"rho_b": np.ones(2)}),
    ("share must be in", {"share": 1.5}),
    ("share is for marginals", {"share": 0.5, "rho_a": 1.0}),
    ("loss must be one of", {"loss": "cubic"}),
    ("init must be a plan", {"init": "best"}),
    ("needs key", {"init": "random"}),
    ("init must have shape", {"init": np.zeros((2, 3))}),
    ("init must be a plan: finite", {"init": -np.ones((3, 2))}),
    ("starts is the number", {"starts": 3}),
    ("epsilon must be positive", {"epsilon": 0.0}),
    ("tolerance must be positive", {"tolerance": 0.0}),
    ("PointCloud\\(x, x\\)", {"x": PointCloud(np.zeros((3, 2)), np.ones((3, 2)))}),
    ("factors of one shape", {"x": LowRank(np.zeros((3, 2)), np.zeros((3, 1)))}),
    ("x must be symmetric", {"x": PointCloud(LINE, LINE, lambda u, v: u[0])}),
    ("linear must not be NaN", {"linear": PointCloud(LINE, np.full((2, 1), np.inf))}),
    ("linear must not be NaN", {"linear": np.full((3, 2), np.nan)}),
    ("init must hold finite", {"init": (np.zeros(3), np.full(2, np.nan))}),
]


@pytest.mark.parametrize(("message", "given"), BAD)
def test_bad_input_names_the_argument(message, given):
    call = {"x": np.zeros((3, 3)), "y": np.zeros((2, 2)), "epsilon": 1.0, **given}
    with pytest.raises((ValueError, TypeError), match=message):
        solve_quadratic(call.pop("x"), call.pop("y"), **call)


def test_bad_input_of_what_is_built_on_it():
    three, two = np.zeros((3, 3)), np.zeros((2, 2))
    with pytest.raises(ValueError, match="graphs of one size"):
        match_graphs(three, two, epsilon=1.0)
    masses = np.full((2, 3), 1 / 3)
    with pytest.raises(ValueError, match="costs must have shape"):
        space_barycentre(np.zeros((2, 3, 2)), masses, two, epsilon=1.0)
    with pytest.raises(ValueError, match="start must have shape"):
        space_barycentre(np.zeros((2, 3, 3)), masses, two[:1], epsilon=1.0)
    costs = np.zeros((2, 3, 3))
    costs[1, 0, 1] = 1.0
    with pytest.raises(ValueError, match=r"costs\[1\] must be symmetric"):
        space_barycentre(costs, masses, two, epsilon=1.0)
    with pytest.raises(ValueError, match="start must be finite"):
        space_barycentre(np.zeros((2, 3, 3)), masses, two * np.nan, epsilon=1.0)


def test_a_grid_is_its_matrix():
    axis = jnp.asarray([0.0, 1.0, 2.5])
    grid = Grid(x=(axis, axis[:2]))
    cost = grid.dense().cost
    options = {"epsilon": 0.5, "init": "eccentricity"}
    one = solve_quadratic(grid, DATA["y"], **options)
    other = solve_quadratic(cost, DATA["y"], **options)
    np.testing.assert_array_equal(one.plan(), other.plan())
