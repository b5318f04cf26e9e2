"""Faults put in on purpose: the status is right, other lanes and results untouched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxsns
from experiments.drills import checks, problems, solving
from experiments.drills.problems import Setting
from jaxsns import Dense, NewtonOptions, Status
from jaxsns.hessian import schur as schur
from jaxsns.linear import lane_algebra as lane_algebra
from jaxsns.linear.conjugate_gradient import CGResult

LANES = 48  # and settings as in test_properties, whose programs are used again
R = np.random.default_rng(0)
# What is done to a lane, and how it has to end.
FAULTS = {
    3: ("cost", np.nan, Status.NONFINITE),
    5: ("cost", -np.inf, Status.NONFINITE),
    7: ("a", -1.0, Status.INVALID_INPUT),
    11: ("b", np.nan, Status.INVALID_INPUT),
    13: ("epsilon", np.nan, Status.INVALID_INPUT),
    17: ("epsilon", 0.0, Status.INVALID_INPUT),
    19: ("a", 1e15, Status.MASS_MISMATCH),
    23: ("cost", 2e145, Status.NONFINITE),  # neither a cost nor a forbidden pair
}


def _clean(setting, seed):
    """Lanes that have a plan."""
    lanes = problems.draw(setting, seed, 3 * LANES)
    good = [k for k, kind in enumerate(lanes.kinds) if kind != "infeasible"]
    return problems.some(lanes, good[:LANES])


@pytest.mark.parametrize("shape", [(12, 12), (33, 40)])
def test_faults_in_lanes_leave_the_others_untouched(shape):
    dtype = "float64" if shape == (12, 12) else "float32"
    setting = Setting(shape, dtype)
    lanes = _clean(setting, 5)
    before = solving.solve(setting, lanes)
    spoilt = lanes._replace(
        **{k: getattr(lanes, k).copy() for k in ("cost", "a", "b", "epsilon")}
    )
    for k, (name, value, _) in FAULTS.items():
        value = min(value, 2e13) if dtype == "float32" else value
        getattr(spoilt, name)[(k, *[0] * (getattr(lanes, name).ndim - 1))] = value
    after = solving.solve(setting, spoilt)
    others = np.setdiff1d(np.arange(LANES), list(FAULTS))
    for now, then in zip(after, before, strict=True):
        np.testing.assert_array_equal(now[others], then[others])
    for k, (_, _, status) in FAULTS.items():
        assert after.status[k] == status, (k, Status(int(after.status[k])))
        assert np.all(np.isnan(after.f[k]))
        assert np.all(np.isnan(after.g[k]))
        assert np.isnan(after.value[k])


def test_a_lane_that_diverges_or_runs_out_of_steps():
    costs = R.random((4, 7, 7))
    costs[1, 2] = np.inf
    costs[1, 2, 2] = 0.5  # a row that may use one column only, half as large as it
    masses = np.full(7, 1 / 7)
    sides = np.stack([np.r_[masses[:2], 2 / 7, masses[3:5], 0, 1 / 7]] * 4)
    limits = jnp.asarray([1000, 1000, 2, 1000])
    run = lambda c, a, k: jaxsns.solve(c, a, masses, epsilon=1e-3, max_steps=k)
    batch = jax.jit(jax.vmap(run))(costs, sides, limits)
    names = [Status(int(s)).name for s in batch.status]
    assert names == ["CONVERGED", "INFEASIBLE", "MAX_STEPS", "CONVERGED"]
    clean = jax.jit(jax.vmap(run))(costs[[0, 0, 0, 3]], sides, limits * 0 + 1000)
    for k in (0, 3):
        np.testing.assert_array_equal(batch.f[k], clean.f[k])
    assert np.all(np.isfinite(np.asarray(batch.f[2])[sides[2] > 0]))
    true = references.error(costs[2], sides[2], masses, batch.f[2], batch.g[2], 1e-3)
    assert abs(true - float(batch.error[2])) < 1e-11


def _nothing(rhs):
    return rhs * jnp.nan


def _rubbish(rhs):
    return -17 * jnp.roll(rhs, 1, axis=0)


@pytest.fixture
def broken(monkeypatch):
    """Replace every linear solve of a Newton step, and of derivatives, by another."""

    def put(result):
        monkeypatch.setattr(
            schur, "solve_cholesky", lambda s, rhs, refinements=0: result(rhs)
        )
        end = lambda rhs: CGResult(
            result(rhs), jnp.asarray(1, jnp.int32), jnp.asarray(True)
        )
        monkeypatch.setattr(schur, "solve_cg", lambda s, rhs, *_: end(rhs))
        monkeypatch.setattr(lane_algebra, "solve_definite", lambda m, rhs: result(rhs))
        jax.clear_caches()

    yield put
    monkeypatch.undo()
    jax.clear_caches()


@pytest.mark.parametrize("result", [_nothing, _rubbish])
def test_directions_that_mislead_are_refused(broken, result):
    """They claim to have converged; sweeps go on, and what is said is true."""
    cost, even = R.random((140, 140)), np.full(140, 1 / 140)
    broken(result)
    for epsilon in (0.2, 0.02):
        s = jaxsns.solve(cost, epsilon=epsilon, method="newton")
        assert int(s.counts.newton_steps) > 0
        error = references.error(cost, even, even, s.f, s.g, epsilon)
        assert s.converged
        assert error < 1.1e-10


@pytest.mark.parametrize("result", [_nothing, _rubbish])
def test_a_newton_step_that_cannot_be_solved_for(broken, result):
    """Steps are refused, the sweeps between them go on, and what is said is true."""
    cost = R.random((6, 6))
    masses = np.full(6, 1 / 6)
    hard = np.random.default_rng(1).random((6, 6))
    broken(result)
    for method in ("newton", NewtonOptions(1e-10, linear_solver="cg")):
        s = jaxsns.solve(cost, masses, masses, epsilon=0.2, method=method)
        assert int(s.status) == Status.CONVERGED
        assert references.error(cost, masses, masses, s.f, s.g, 0.2) < 1.1e-10
    run = lambda c, e: jaxsns.solve(c, masses, masses, epsilon=e, method="newton")
    batch = jax.jit(jax.vmap(run))(np.stack([cost, hard]), jnp.asarray([0.2, 2e-3]))
    assert int(batch.status[0]) == Status.CONVERGED
    alone = run(hard, 2e-3)
    for s, status in ((alone, alone.status), (batch, batch.status[1])):
        assert int(status) in (Status.CONVERGED, Status.STALLED, Status.MAX_STEPS)
        f, g, error = (
            v if v.ndim == k else v[1] for v, k in ((s.f, 1), (s.g, 1), (s.error, 0))
        )
        assert np.all(np.isfinite(f))
        true = references.error(hard, masses, masses, f, g, 2e-3)
        assert abs(true - float(error)) < 1e-12
        assert true < 0.5  # sweeps and levels were not for nothing


@pytest.mark.parametrize("result", [_nothing, _rubbish])
def test_a_derivative_that_cannot_be_solved_for_is_nan(broken, result):
    """Never another number; and the value needs no linear solve."""
    cost = R.random((6, 6))

    def solve(c):
        return jaxsns.solve(c, epsilon=0.2, method="sinkhorn")

    exact = jax.jit(jax.grad(lambda c: solve(c).value))(cost)
    broken(result)
    slope = lambda of: jax.jit(jax.grad(lambda c: of(solve(c))))(cost)
    assert np.all(np.isnan(slope(lambda s: s.f[0])))
    np.testing.assert_array_equal(slope(lambda s: s.value), exact)
    along = jax.jit(lambda c: jax.jvp(lambda c: solve(c).f, (c,), (c,))[1])
    tangent = along(cost)
    assert np.all(np.isnan(tangent))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_lifted_to_float32(dtype):
    cost = jnp.asarray(R.random((4, 5)), dtype)
    s = jaxsns.solve(cost, epsilon=0.1)
    lifted = jaxsns.solve(cost.astype(jnp.float32), epsilon=0.1)
    assert s.f.dtype == jnp.float32
    np.testing.assert_array_equal(s.f, lifted.f)
    # Totals of three digits differ by their rounding: they are made equal.
    a = jnp.asarray([0.3, 0.3, 0.3, 0.1], dtype)
    b = jnp.full(5, 0.2, dtype)
    run = lambda a, b: jaxsns.solve(cost, a, b, epsilon=0.1)
    for solve in (run, jax.jit(run)):
        s = solve(a, b)
        assert s.status == Status.CONVERGED
        rows, columns = (np.asarray(x, float) for x in s.marginals())
        np.testing.assert_allclose(rows, np.asarray(a, float), atol=1e-5)
        np.testing.assert_allclose(columns, rows.sum() / 5, atol=1e-5)
    # More than that is said, not mended.
    with pytest.raises(ValueError, match="a and b must have equal totals"):
        run(a, 2 * b)
    assert int(jax.jit(run)(a, 2 * b).status) == Status.MASS_MISMATCH


def test_overflow_in_half_precision():
    """What overflowed before we saw it is +inf: in a cost a forbidden pair."""
    cost = (1e5 * np.eye(4) + 1.0).astype(jnp.float32)
    with np.errstate(over="ignore"):
        half, masses = cost.astype(np.float16), np.full(4, 1e5).astype(np.float16)
        least = np.float16(1e-9)
    s = jaxsns.solve(half, epsilon=10.0)
    assert int(s.status) == Status.CONVERGED
    assert np.all(np.diag(s.plan()) == 0)
    every = jaxsns.solve(np.full((4, 4), np.inf, np.float16), epsilon=10.0)
    assert int(every.status) == Status.INFEASIBLE
    with pytest.raises(ValueError, match="cost must be finite"):
        jaxsns.solve(-half, epsilon=10.0)
    with pytest.raises(ValueError, match="a must hold finite masses"):
        jaxsns.solve(np.ones((4, 4)), masses, masses, epsilon=10.0)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        jaxsns.solve(np.ones((4, 4)), epsilon=least)


@pytest.mark.parametrize("size", [2e13, 1e18, 1e20, 3e38])
def test_costs_that_would_pass_for_forbidden_pairs(size):
    """From 1e18 on a forbidden pair was cheap, and got mass, in a CONVERGED solve."""
    cost = np.float32(R.uniform(0.6, 1, (5, 6)) * size)
    cost[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"cost must be below 1e\+13 in float32"):
        jaxsns.solve(cost, epsilon=0.1 * size)
    run = jax.jit(lambda c, e: jaxsns.solve(c, epsilon=e))
    s = run(cost, np.float32(0.1 * size))
    assert int(s.status) == Status.NONFINITE
    assert np.all(np.isnan(s.f))


def test_a_traced_matrix_is_not_copied_for_the_sake_of_forbidden_pairs():
    """Kernel, Newton matrix, LAPACK's copy, a mask: 3.14 arrays; 4.14 with a copy."""
    n = 300
    solved = jax.jit(lambda c: jaxsns.solve(c, epsilon=1e-2).f)
    compiled = solved.lower(np.ones((n, n))).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 3.4 * 8 * n * n


def test_a_problem_with_forbidden_pairs_that_comes_out_of_jit_is_solved_again():
    cost = R.random((5, 6))
    cost[1, :2] = np.inf
    known = jaxsns.solve(cost, epsilon=0.1)
    traced = jax.jit(lambda c: jaxsns.solve(c, epsilon=0.1))(cost)
    assert jaxsns.diagnose(traced).names == ()
    again = jaxsns.solve(traced.problem)
    even = np.full(5, 0.2), np.full(6, 1 / 6)
    assert references.error(cost, *even, known.f, known.g, 0.1) < 1.1e-10
    for other in (traced, again):
        np.testing.assert_allclose(other.f, known.f, atol=1e-12)
        np.testing.assert_allclose(other.plan(), known.plan(), atol=1e-14)
        np.testing.assert_allclose(other.transport_cost, known.transport_cost)
    scaled = lambda c: jaxsns.solve(c, epsilon=0.1, scale_cost="mean").plan()
    np.testing.assert_allclose(jax.jit(scaled)(cost), scaled(cost), atol=1e-12)
    empty = np.r_[0.25, 0, 0.25, 0.25, 0.25]  # forbidden pairs in a row without mass
    s = jax.jit(lambda c: jaxsns.solve(c, empty, epsilon=1e-4))(cost)
    assert s.converged
    error = references.error(cost, empty, np.full(6, 1 / 6), s.f, s.g, 1e-4)
    assert error < 1.1e-10


@pytest.mark.parametrize("empty", [False, True])
def test_forbidden_pairs_do_not_count_in_the_spread(empty):
    """Of traced costs, in a row with mass and in one without; a path hangs on it."""
    cost, a = R.random((5, 6)), np.full(5, 0.2)
    cost[1, :2] = np.inf
    if empty:
        a[1] = 0
    used = cost[a > 0]
    used = used[np.isfinite(used)]
    spread = lambda c: Dense(c).spread(jnp.asarray(a) > 0, jnp.ones(6, bool))
    got = jax.jit(spread)(jnp.asarray(cost))
    np.testing.assert_allclose(got, used.max() - used.min(), rtol=1e-15)


def test_forbidden_pairs_in_float32_with_masses_in_float64():
    """The stand-in was float32's, a cost like others in float64: epsilon was 9e15."""
    cost = R.random((5, 6))
    cost[0, 0] = np.inf
    masses = np.full(5, 0.2), np.full(6, 1 / 6)
    mixed = jaxsns.solve(np.float32(cost), *masses)
    whole = jaxsns.solve(cost, *masses)
    np.testing.assert_allclose(mixed.epsilon, whole.epsilon, rtol=1e-6)
    np.testing.assert_allclose(mixed.plan(), whole.plan(), atol=1e-6)


@functools.cache
def _long():
    cost = np.random.default_rng(7).random((33, 40))
    return cost, jaxsns.solve(cost, epsilon=3e-3, method="sinkhorn")


@pytest.mark.parametrize("pieces", [2, 5])
def test_a_long_solve_goes_on_from_what_was_saved(tmp_path, pieces):
    cost, whole = _long()
    assert int(whole.status) == Status.CONVERGED
    total = int(whole.counts.sweeps)
    assert total > 100
    piece, done, init = total // pieces, 0, None
    errors = []
    for _ in range(3 * pieces):
        s = jaxsns.solve(
            cost, epsilon=3e-3, method="sinkhorn", max_steps=piece, init=init
        )
        done += int(s.counts.sweeps)
        errors.append(float(s.error))
        if bool(s.converged):
            break
        assert int(s.status) == Status.MAX_STEPS
        np.savez(tmp_path / "saved.npz", f=s.f, g=s.g)
        saved = np.load(tmp_path / "saved.npz")
        init = saved["f"], saved["g"]
        # What is saved is as good as what was reported.
        masses = np.full(33, 1 / 33), np.full(40, 1 / 40)
        true = references.error(cost, *masses, *init, 3e-3)
        assert abs(true - errors[-1]) < 1e-12
    assert bool(s.converged)
    np.testing.assert_allclose(s.f, whole.f, atol=1e-9)
    # The relaxation factor is found anew in each piece: a window of sweeps or so.
    assert done <= 1.3 * total + 40 * pieces


def test_a_newton_solve_goes_on_from_what_was_saved():
    cost = np.random.default_rng(7).random((33, 40))
    whole = jaxsns.solve(cost, epsilon=1e-3)
    init, done = None, 0
    for _ in range(20):
        s = jaxsns.solve(cost, epsilon=1e-3, max_steps=15, init=init)
        done += int(s.counts.sweeps)
        if bool(s.converged):
            break
        init = np.asarray(s.f), np.asarray(s.g)
    assert bool(s.converged)
    np.testing.assert_allclose(s.plan(), whole.plan(), atol=1e-10)
    assert done <= 2 * int(whole.counts.sweeps) + 15


@pytest.mark.parametrize("size", [1e36, 1e37])
def test_masses_near_the_limit_of_float32(size):
    """Right, though costs times masses overflow.

    Some lanes were CONVERGED with potentials that were NaN, some were NONFINITE.
    """
    setting = Setting((12, 12), "float32")
    lanes = _clean(setting, 9)
    total = lanes.a.sum(1, keepdims=True)
    large = lanes._replace(a=lanes.a / total * size, b=lanes.b / total * size)
    answers = solving.solve(setting, large)
    assert not np.any(answers.status == Status.NONFINITE)
    # Costs times such masses overflow: a value may be infinite, and says so.
    words = checks.judge(setting, large, answers).violations
    assert not [w for ws in words for w in ws if not w.startswith(("value", "primal"))]
