"""The iterations on their own: iterates, counts, warm starts, which way is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns import NewtonOptions, SinkhornOptions, SNSOptions, Status
from jaxsns.problem import marginal
from jaxsns.solvers import continuation, kernel_loop, registry, sns
from jaxsns.solvers.loop import status_at
from jaxsns.solvers.newton import line_search
from jaxsns.solvers.sinkhorn import overrelaxed

RUNS = {
    "sinkhorn": SinkhornOptions(1e-10, 20_000),
    "plain": SinkhornOptions(1e-10, 400_000, overrelaxation=False),
    "newton": NewtonOptions(tolerance=1e-10),
    "cg": NewtonOptions(tolerance=1e-10, linear_solver="cg"),
    "cholesky": NewtonOptions(tolerance=1e-10, linear_solver="cholesky"),
    "sns": SNSOptions(tolerance=1e-10),
}


def _problem(name="uneven", epsilon=0.05):
    cost, a, b = problems.ALL[name]()
    return jaxsns.make_problem(cost, a, b, epsilon=epsilon * cost.std()).dense()


def _run(problem, options, f=None, path=False):
    """State at the end of a method's own loop, from row potentials f."""
    if isinstance(options, SNSOptions):
        return sns.run(problem, options, sns.init(problem, f))
    _, entry = registry.find(options)
    levels = continuation.plan(problem, path)
    start = kernel_loop.initial(problem, f)
    steps = entry.on_kernel(options)
    return kernel_loop.solve(problem, options, steps, levels, start)


@pytest.mark.parametrize("name", RUNS)
def test_a_method_on_its_own(name):
    options = RUNS[name]
    problem = _problem()
    end = _run(problem, options)
    assert int(end.status) == Status.CONVERGED
    got = references.error(
        problem.geometry.cost,
        problem.a,
        problem.b,
        end.f,
        end.g,
        float(problem.epsilon),
    )
    assert got <= 1.01e-10
    np.testing.assert_allclose(end.error, got, rtol=0.1)
    # Starting at the solution costs nothing.
    again = _run(problem, options, end.f)
    assert int(again.status) == Status.CONVERGED
    assert int(again.counts.sweeps) <= 1
    assert int(again.counts.newton_steps) == 0


def test_levels_of_a_path():
    problem = _problem("assignment", 0.02)
    levels = lambda p: int(continuation.plan(p, True).levels)
    assert levels(problem) == 0  # large enough to be solved at once
    smaller = problem.with_epsilon(problem.epsilon / 20)
    assert levels(smaller) >= 3
    assert int(continuation.plan(smaller, False).levels) == 0
    assert int(continuation.number_of_levels(jnp.asarray(50.0))) == 3
    path = continuation.plan(smaller, True)
    at = lambda k: continuation.epsilon_at(path.epsilon, path.first, path.levels, k)
    epsilons = [float(at(jnp.asarray(k))) for k in range(int(path.levels) + 2)]
    np.testing.assert_allclose(epsilons[0], path.first)
    assert epsilons[-1] == epsilons[-2] == float(smaller.epsilon)
    ratios = np.divide(epsilons[:-2], epsilons[1:-1])
    np.testing.assert_allclose(ratios, ratios[0])
    assert 1 < ratios[0] <= continuation.LEVEL_FACTOR


@pytest.mark.parametrize(
    "options",
    [SinkhornOptions(1e-5, 200_000), RUNS["newton"], RUNS["cg"], RUNS["cholesky"]],
    ids=["sinkhorn", "newton", "cg", "cholesky"],
)
def test_a_path_around_any_method(options):
    problem = _problem("assignment", 5e-4)
    end = _run(problem, options, path=True)
    assert int(end.status) == Status.CONVERGED
    assert int(end.level) >= 3
    epsilon = float(problem.epsilon)
    cost, a, b = problem.geometry.cost, problem.a, problem.b
    error = references.error(cost, a, b, end.f, end.g, epsilon)
    assert error <= 1.01 * options.tolerance


@pytest.mark.parametrize(
    ("name", "epsilon", "levels"),
    [
        ("assignment", 0.5, 0),  # the first sweeps come near
        ("assignment", 0.0095, 0),  # they do not, but epsilon is not small
        ("assignment", 1e-4, 3),
    ],
)
def test_a_path_is_taken_only_where_it_is_needed(name, epsilon, levels):
    problem = _problem(name, epsilon)
    options = RUNS["newton"]
    end = _run(problem, options, path=True)
    assert int(end.status) == Status.CONVERGED
    assert (int(end.level) > 0) == (levels > 0)
    assert int(end.level) >= levels
    assert (int(end.counts.passes) > 2) == (levels > 0)
    # Potentials that were given and are good need no path.
    end = _run(problem, options, end.f, path=True)
    assert int(end.status) == Status.CONVERGED
    assert int(end.level) == 0
    assert int(end.counts.passes) <= 2


def test_plain_sinkhorn_iterates_match_a_numpy_loop():
    cost, a, b = problems.uneven()
    problem = jaxsns.make_problem(cost, a, b, epsilon=0.3).dense()
    f = np.zeros(a.size)
    for sweeps in range(1, 5):
        # Semi-dual iterates: columns exact, then rows, then columns again.
        options = SinkhornOptions(0.0, sweeps, overrelaxation=False)
        state = _run(problem, options)
        expected = f
        for _ in range(sweeps):
            g = 0.3 * np.log(b) - 0.3 * np.log(
                np.exp((expected[:, None] - cost) / 0.3).sum(0)
            )
            rows = 0.3 * np.log(np.exp((g[None] - cost) / 0.3).sum(1))
            expected = 0.3 * np.log(a) - rows
        # What is returned has its gauge fixed: the same up to a constant.
        np.testing.assert_allclose(np.ptp(state.f - expected), 0, atol=1e-12)
        assert int(state.counts.sweeps) == sweeps
        assert int(state.status) == Status.MAX_STEPS


def test_overrelaxation_saves_most_sweeps_and_never_lowers_the_dual():
    cost, a, b = problems.uneven()
    kw = dict(epsilon=0.02 * cost.std(), tolerance=1e-9)
    plain = SinkhornOptions(1e-9, overrelaxation=False)
    fast = jaxsns.solve(cost, a, b, method="sinkhorn", **kw)
    slow = jaxsns.solve(cost, a, b, method=plain, **kw, max_steps=200_000)
    assert fast.converged
    assert int(fast.counts.sweeps) < 0.4 * int(slow.counts.sweeps)
    values = [
        float(jaxsns.solve(cost, a, b, method="sinkhorn", max_steps=k, **kw).value)
        for k in (1, 5, 20, 21, 40, 60, 100, 200)
    ]
    assert np.all(np.diff(values) >= -1e-12)


def test_omega_is_the_optimum_of_the_measured_contraction():
    # From a plain sweep with contraction rho, and from over-relaxed ones.
    rho = 0.99
    best = 2 / (1 + np.sqrt(1 - rho))
    one = jnp.asarray(1.0)
    np.testing.assert_allclose(overrelaxed.best_omega(one, jnp.asarray(rho)), best)
    omega = 1.5
    # Largest root lam of (lam + w - 1)^2 = w^2 rho lam.
    roots = np.roots([1, 2 * (omega - 1) - omega**2 * rho, (omega - 1) ** 2])
    lam = jnp.asarray(np.max(roots.real))
    np.testing.assert_allclose(overrelaxed.best_omega(jnp.asarray(omega), lam), best)
    # A decay at the limit w - 1 tells nothing: the factor is kept.
    np.testing.assert_allclose(
        overrelaxed.best_omega(jnp.asarray(1.9), jnp.asarray(0.9)), 1.9
    )


def test_unsafe_relaxation_is_replaced_by_the_plain_step():
    masses = jnp.asarray([0.5, 0.5])
    sums = jnp.asarray([1e-8, 1.0])
    target = marginal.constraint(masses, None, masses, jnp.asarray(1.0))
    zero, omega = jnp.zeros(2), jnp.asarray(1.95)
    plain = jnp.log(masses / sums)
    step, gain = overrelaxed.relaxed(target, zero, sums, plain, omega)
    np.testing.assert_allclose(step, np.log(np.asarray(masses / sums)))
    assert float(gain) > 0
    plain = jnp.full(2, jnp.log(1 / 1.01))
    step, _ = overrelaxed.relaxed(target, zero, masses * 1.01, plain, omega)
    np.testing.assert_allclose(step, 1.95 * np.log(1 / 1.01) * np.ones(2))


def test_paper_claim_on_the_assignment_problem():
    """At most 12 Newton steps after 20 sweeps to 1e-13, n = 500, epsilon = 1/1200."""
    cost, a, b = problems.assignment(500)
    options = SNSOptions(tolerance=1e-13, warm_up=20, kept=8)
    s = jaxsns.solve(cost, a, b, epsilon=1 / 1200, method=options)
    assert s.converged
    assert int(s.counts.sweeps) == 20
    assert int(s.counts.newton_steps) <= 12  # measured 9
    assert references.error(cost, a, b, s.f, s.g, 1 / 1200) <= 2e-13


def test_auto_uses_newton_only_when_it_pays():
    cost, a, b = problems.assignment(80)
    easy = jaxsns.solve(cost, a, b, epsilon=0.5)
    hard = jaxsns.solve(cost, a, b, epsilon=1e-3)
    assert int(easy.counts.newton_steps) == 0
    assert int(easy.counts.sweeps) < 20
    assert int(hard.counts.newton_steps) > 0
    assert easy.converged
    assert hard.converged


def test_no_path_where_the_first_sweeps_come_near():
    """Random costs; 60 points have a path, after a few steps on one kernel."""
    cost, a, b = problems.assignment(400)
    epsilon = 1 / 450
    direct = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-10, history=True)
    assert direct.converged
    assert np.all(direct.history.rows()["epsilon"] == epsilon)
    assert int(direct.counts.passes) <= 2
    method = NewtonOptions(linear_solver="cg")
    other = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-10, method=method)
    np.testing.assert_allclose(direct.plan(), other.plan(), atol=1e-11)
    assert references.error(cost, a, b, direct.f, direct.g, epsilon) <= 1.05e-10

    x, y = np.random.default_rng(0).normal(size=(2, 60, 2))
    points = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = points.max() / 10_000
    s = jaxsns.solve(points, epsilon=epsilon, tolerance=1e-10, history=True)
    assert s.converged
    levels = s.history.rows()["epsilon"]
    begun = np.argmax(levels > epsilon)
    assert 3 <= begun <= 8
    assert levels[begun] > 10 * epsilon
    even = np.full(60, 1 / 60)
    assert references.error(points, even, even, s.f, s.g, epsilon) <= 1.05e-10


@pytest.mark.parametrize(
    ("d", "ratio", "direct"), [(2, 1200, True), (10, 300, True), (10, 1200, False)]
)
def test_no_path_where_one_kernel_will_do(d, ratio, direct):
    """Also from an error of 0.4, if potentials are not far off yet."""
    x, y = np.random.default_rng(0).normal(size=(2, 150, d))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / ratio
    s = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-9, history=True)
    assert s.converged
    rows = s.history.rows()
    assert np.all(rows["epsilon"][:3] == epsilon)
    assert (rows["epsilon"][4] == epsilon) == direct
    assert np.all(rows["epsilon"] == epsilon) == direct
    assert (int(s.counts.passes) == 2) == direct  # the kernel, and the check
    assert 0.25 < rows["error"][2] < 0.7
    even = np.full(150, 1 / 150)
    assert references.error(cost, even, even, s.f, s.g, epsilon) <= 1.05e-9


def test_a_kernel_used_up_to_good_effect_is_followed_by_one_from_there():
    """No path then, which would begin anew."""
    x, y = np.random.default_rng(1).normal(size=(2, 150, 10))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / 4000
    s = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-9, history=True)
    assert s.converged
    assert np.all(s.history.rows()["epsilon"] == epsilon)
    assert int(s.counts.passes) == 6  # five kernels, and the check
    even = np.full(150, 1 / 150)
    assert references.error(cost, even, even, s.f, s.g, epsilon) <= 1.05e-9


@pytest.mark.parametrize(("n", "m", "seed"), [(100, 600, 3), (140, 800, 1)])
def test_one_float32_kernel_serves_to_the_end_if_that_is_near(n, m, seed):
    """It serves a third as far; down a path it was 25 sweeps and more, and 5 passes."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1).astype(np.float32)
    epsilon = np.float32(cost.max() / 800)
    s = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-3, history=True)
    assert s.converged
    rows = s.history.rows()
    assert np.all(rows["epsilon"] == epsilon)
    assert np.all(rows["error"][:4] > 0.1)
    assert int(s.counts.passes) == 2
    assert int(s.counts.sweeps) <= 12
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    assert references.error(cost, a, b, s.f, s.g, float(epsilon)) <= 1e-3


def test_a_float32_kernel_whose_rows_had_vanished_is_followed_by_a_path():
    """After the sweep that brings them back the error is that of a path's end.

    Measured 92 products, and 398 where steps went on from there.
    """
    x, y = np.random.default_rng(0).normal(size=(2, 1000, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1).astype(np.float32)
    epsilon = np.float32(cost.max() / 10_000)
    s = jaxsns.solve(cost, epsilon=epsilon, tolerance=1e-3, history=True)
    assert s.converged
    rows = s.history.rows()
    assert np.any(rows["epsilon"] > 10 * epsilon)
    assert rows["error"][0] < 0.38  # of a kernel whose rows are whole, near enough
    assert int(s.counts.linear_steps) <= 150
    even = np.full(1000, 1e-3)
    assert references.error(cost, even, even, s.f, s.g, float(epsilon)) <= 1.1e-3


@pytest.mark.parametrize("seed", [5, 6, 10])
def test_a_kernel_used_up_in_vain_is_followed_by_a_path(seed):
    """From potentials that were given, too: the first kernel's error is theirs alone.

    Tight clusters, epsilon 1e-5 of the largest cost, masses over six powers: some 50
    steps down a path, over 1000 without.
    """
    rng = np.random.default_rng(seed)
    centres = 5 * rng.normal(size=(6, 2))
    sides = (centres[rng.integers(6, size=k)] for k in (140, 150))
    x, y = (side + 0.05 * rng.normal(size=side.shape) for side in sides)
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    a, b = (10 ** rng.uniform(-6, 0, size=k) for k in cost.shape)
    a, b = a / a.sum(), b / b.sum()
    epsilon = 1e-5 * cost.max()
    start = np.zeros(140), np.zeros(150)
    s = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=1e-8, init=start)
    assert s.converged
    assert int(s.counts.sweeps) <= 80
    assert references.error(cost, a, b, s.f, s.g, epsilon) <= 1.05e-8


@pytest.mark.parametrize("seed", [0, 2])
def test_no_path_where_newton_steps_are_near_enough(seed):
    """To either tolerance in one go; 5 and 13 Newton steps measured."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 60, 2))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / 600
    even = np.full(60, 1 / 60)
    for tolerance, most in ((1e-2, 5), (1e-9, 13)):
        s = jaxsns.solve(cost, epsilon=epsilon, tolerance=tolerance, history=True)
        assert s.converged
        assert np.all(s.history.rows()["epsilon"] == epsilon)
        assert 0 < int(s.counts.newton_steps) <= most
        assert int(s.counts.passes) == 2
        error = references.error(cost, even, even, s.f, s.g, epsilon)
        assert error <= 1.05 * tolerance


@pytest.mark.parametrize("n", [64, 65])
def test_directions_of_few_rows_are_found_by_a_factor(n):
    """Up to 64 rows a factor costs less than the products; either has the answer."""
    x, y = np.random.default_rng(0).normal(size=(2, n, 10))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    epsilon = cost.max() / 600
    run = lambda method: jaxsns.solve(
        cost, epsilon=epsilon, tolerance=1e-10, method=method, history=True
    )
    factor = n == 64
    s = run("auto")
    other = run(NewtonOptions(linear_solver="cg" if factor else "cholesky"))
    for end, factorised in ((s, factor), (other, not factor)):
        assert end.converged
        kind = jaxsns.StepKind.CHOLESKY if factorised else jaxsns.StepKind.CG
        assert set(end.history.rows()["kind"][:-1]) == {jaxsns.StepKind.SWEEP, kind}
        assert (int(end.counts.linear_steps) == 0) == factorised
    np.testing.assert_allclose(s.plan(), other.plan(), atol=1e-10)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn", "sns"])
@pytest.mark.parametrize("name", ["uneven", "tall", "zero_masses"])
def test_a_warm_start_saves_work(method, name):
    cost, a, b = problems.ALL[name]()
    epsilon = 0.02 * cost.std()
    run = lambda cost, init=None: jaxsns.solve(
        cost, a, b, epsilon=epsilon, method=method, init=init
    )
    work = lambda s: sum(int(x) for x in s.counts)
    cold = run(cost)
    warm = run(cost, (cold.f, cold.g))
    assert warm.converged
    assert work(warm) <= 5
    np.testing.assert_allclose(warm.plan(), cold.plan(), atol=1e-8)
    nudged = cost * (1 + 1e-3 * np.random.default_rng(0).random(cost.shape))
    assert work(run(nudged, (cold.f, cold.g))) < work(run(nudged))


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_a_bad_start_does_no_harm(scale):
    cost, a, b = problems.uneven()
    r = np.random.default_rng(0)
    start = scale * r.normal(size=a.size), scale * r.normal(size=b.size)
    for method in ("auto", "newton", "sinkhorn", "sns"):
        s = jaxsns.solve(cost, a, b, epsilon=0.05, method=method, init=start)
        assert s.converged, s


def test_extreme_potentials_are_absorbed_without_overflow():
    cost, a, b = problems.uneven()
    problem = jaxsns.make_problem(cost * 1e6, a, b, epsilon=1e-2).dense()
    state = _run(problem, SinkhornOptions(1e-9, 50))
    assert int(state.counts.sweeps) == 50
    assert np.all(np.isfinite(state.f))
    assert not np.isnan(state.error)


def test_history_is_not_part_of_the_state():
    """States stay O(n + m): no kernel, and no history unless it was asked for."""
    problem = _problem()
    for options in RUNS.values():
        if isinstance(options, SNSOptions):
            state = sns.init(problem)
        else:
            memory = registry.find(options)[1].on_kernel(options).memory
            state = kernel_loop.initial(problem, None)
            state = state._replace(memory=memory(problem.dtype, None))
        assert max(x.size for x in jax.tree.leaves(state)) <= max(problem.shape)


def test_a_status_is_tested_in_order_of_meaning():
    case = lambda error, step, stalled: int(
        status_at(jnp.asarray(error), 1e-3, step, 10, jnp.asarray(stalled))
    )
    assert case(1e-4, 10, True) == Status.CONVERGED
    assert case(1e-2, 10, True) == Status.STALLED
    assert case(1e-2, 10, False) == Status.MAX_STEPS
    assert case(1e-2, 9, False) == Status.RUNNING
    assert case(np.nan, 0, False) == Status.NONFINITE


def test_a_newton_step_that_gains_nothing_is_not_made(monkeypatch):
    """Sweeps alone are left, and those never raise the error."""

    def backwards(attempt, room, length, point, due):
        bad = -3 * length
        return line_search.Trial(bad, *attempt(bad), jnp.asarray(False))

    monkeypatch.setattr(line_search, "search", backwards)
    cost = np.random.default_rng(0).random((7, 11))  # a shape of no other test
    options = {"epsilon": 0.02, "max_steps": 30, "continuation": False}
    solution = jaxsns.solve(cost, method="newton", history=True, **options)
    assert solution.counts.newton_steps > 10
    assert np.all(np.diff(solution.history.rows()["error"][:30]) <= 1e-12)
    jax.clear_caches()
