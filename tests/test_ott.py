"""OTT-JAX on our solver gives OTT's own numbers, where OTT is installed."""

import importlib.util
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

INSTALLED = importlib.util.find_spec("ott") is not None
needs_ott = pytest.mark.skipif(not INSTALLED, reason="ott-jax is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # OTT's own

if INSTALLED:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ott.geometry import costs, geometry, grid, pointcloud
        from ott.problems.linear import linear_problem
        from ott.solvers import linear
        from ott.solvers.linear import sinkhorn
        from ott.tools import sinkhorn_divergence, soft_sort

    def theirs(problem):
        solver = sinkhorn.Sinkhorn(
            threshold=1e-12, max_iterations=20_000, recenter_potentials=True
        )
        return solver(problem)


@pytest.fixture(autouse=True)
def as_ott_expects_jax():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


R = np.random.default_rng(0)
X, Y = jnp.asarray(R.random((12, 2))), jnp.asarray(R.random((9, 2)))
A = jnp.asarray(R.random(12) + 0.1).at[0].set(0)
B = jnp.asarray(R.random(9) + 0.1).at[3].set(0)
A, B = A / A.sum(), B / B.sum()
COST = jnp.asarray(R.random((12, 9)))


def _geometry(name):
    return {
        "squared": lambda: pointcloud.PointCloud(X, Y, epsilon=0.05),
        "default epsilon": lambda: pointcloud.PointCloud(X, Y),
        "scaled": lambda: pointcloud.PointCloud(X, Y, epsilon=0.05, scale_cost="mean"),
        "euclidean": lambda: pointcloud.PointCloud(X, Y, costs.Euclidean()),
        "power": lambda: pointcloud.PointCloud(X, Y, costs.PNormP(1.5), epsilon=0.05),
        "costs": lambda: geometry.Geometry(COST, epsilon=0.05),
        "kernel": lambda: geometry.Geometry(
            kernel_matrix=jnp.exp(-10 * COST), epsilon=0.1
        ),
    }[name]()


@needs_ott
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8), (1.0, 0.9)])
@pytest.mark.parametrize(
    "name",
    ["squared", "default epsilon", "scaled", "euclidean", "power", "costs", "kernel"],
)
def test_outputs_match(name, taus):
    problem = linear_problem.LinearProblem(_geometry(name), A, B, *taus)
    expected = theirs(problem)
    got = jaxsns.ott.Solver(recenter_potentials=True)(problem)
    assert type(got) is type(expected)
    assert bool(got.converged)
    assert int(got.n_iters) > 0
    # Measured: at most 3e-11, what OTT's threshold leaves.
    np.testing.assert_allclose(got.f, expected.f, atol=1e-9)
    np.testing.assert_allclose(got.g, expected.g, atol=1e-9)
    np.testing.assert_allclose(got.matrix, expected.matrix, atol=1e-10)
    for cost in ("reg_ot_cost", "ent_reg_cost", "primal_cost", "dual_cost", "entropy"):
        np.testing.assert_allclose(
            getattr(got, cost), getattr(expected, cost), atol=1e-9
        )
    np.testing.assert_allclose(got.apply(B, axis=1), expected.apply(B, axis=1))


@needs_ott
@pytest.mark.parametrize("cost", ["SqEuclidean", "SqPNorm"])
def test_costs_in_batches_are_streamed_and_a_grid_stays_one(cost):
    made = getattr(costs, cost)
    made = made(1.7) if cost == "SqPNorm" else made()
    online = pointcloud.PointCloud(X, Y, made, epsilon=0.05, batch_size=4)
    stored = pointcloud.PointCloud(X, Y, made, epsilon=0.05)
    mapped = jaxsns.ott._geometry(online)
    assert isinstance(mapped, jaxsns.PointCloud)
    assert mapped.streamed
    got = jaxsns.ott.Solver()(linear_problem.LinearProblem(online, A, B))
    expected = jaxsns.ott.Solver()(linear_problem.LinearProblem(stored, A, B))
    np.testing.assert_allclose(got.f, expected.f, atol=1e-9)
    np.testing.assert_allclose(got.reg_ot_cost, expected.reg_ot_cost, atol=1e-11)

    axes = X[:4, 0], X[:3, 1]
    lattice = grid.Grid(axes, cost_fns=[costs.SqPNorm(1.7)], epsilon=0.1)
    assert isinstance(jaxsns.ott._geometry(lattice), jaxsns.Grid)
    # Masses above zero: with one at zero OTT's own iteration on a Grid goes astray.
    masses = (A + 0.1) / jnp.sum(A + 0.1)
    problem = linear_problem.LinearProblem(lattice, masses, masses[::-1])
    np.testing.assert_allclose(
        jaxsns.ott.Solver(recenter_potentials=True)(problem).f,
        theirs(problem).f,
        atol=1e-9,
    )


@needs_ott
@pytest.mark.parametrize("taus", [(1.0, 1.0), (0.9, 0.8)])
def test_derivatives_match_differences(taus):
    """Of cost, potentials and plan, in points and masses; zero where there is no mass.

    OTT's own number is differenced: its reverse mode fails with this release of JAX.
    """
    w = jnp.asarray(np.random.default_rng(1).normal(size=(12, 9)))
    masses = jnp.where(A > 0, 0.1 * w[:, 0], 0)
    masses = jnp.where(A > 0, masses - masses.sum() / 11, 0)
    direction = w[:, :2], masses

    def loss(solver, x, a):
        cloud = pointcloud.PointCloud(x, Y, epsilon=0.1)
        out = solver(linear_problem.LinearProblem(cloud, a, B, *taus))
        f = jnp.where(a > 0, out.f, 0)
        return jnp.stack([out.reg_ot_cost, jnp.sum(f**2), jnp.vdot(w, out.matrix)])

    def difference(solver, h=1e-5):
        ends = [
            loss(solver, X + s * direction[0], A + s * direction[1]) for s in (h, -h)
        ]
        return (ends[0] - ends[1]) / (2 * h)

    ours = jaxsns.ott.Solver(threshold=1e-13, recenter_potentials=True)
    function = lambda x, a: loss(ours, x, a)
    reverse = jax.jit(jax.jacrev(function, argnums=(0, 1)))(X, A)
    forward = jax.jit(lambda *x: jax.jvp(function, x, direction)[1])(X, A)
    for gradient in reverse:
        assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(reverse[0][:, 0], 0, atol=1e-12)
    total = sum(
        jnp.sum(g * d, axis=tuple(range(1, g.ndim)))
        for g, d in zip(reverse, direction, strict=True)
    )
    np.testing.assert_allclose(total, forward, rtol=1e-8)
    np.testing.assert_allclose(forward, difference(theirs), rtol=2e-5)


@needs_ott
def test_what_ott_builds_on_its_solver_runs_on_ours():
    original = sinkhorn.Sinkhorn
    kwargs = {"threshold": 1e-12, "max_iterations": 20_000}

    def run(**solve_kwargs):
        value, out = sinkhorn_divergence.sinkdiv(
            X, Y, a=A, b=B, epsilon=0.1, solve_kwargs=solve_kwargs
        )
        x = X[:, 0]
        sort = soft_sort.sort(x, epsilon=1e-2, **solve_kwargs)
        ranks = soft_sort.ranks(x, epsilon=1e-2, **solve_kwargs)
        batch = soft_sort.sort(X, axis=0, topk=4, **solve_kwargs)
        dual = linear.solve(_geometry("squared"), **solve_kwargs).to_dual_potentials()
        return value, sort, ranks, batch, dual.transport(X + 0.1)

    expected = run(**kwargs)
    with jaxsns.ott.in_place_of_sinkhorn(threshold=1e-12):
        assert isinstance(sinkhorn.Sinkhorn(), jaxsns.ott.Solver)
        got = run()
        with pytest.raises(ValueError, match="implicit_diff=None"):
            sinkhorn.Sinkhorn(implicit_diff=None)
        with pytest.raises(ValueError, match="progress_fn"):
            sinkhorn.Sinkhorn(progress_fn=print)
        with pytest.raises(TypeError, match="momentun"):
            sinkhorn.Sinkhorn(momentun=1.5)
    assert sinkhorn.Sinkhorn is original
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


@needs_ott
def test_honest_where_it_does_not_converge():
    problem = linear_problem.LinearProblem(_geometry("costs"), A, B)
    out = jaxsns.ott.Solver(max_iterations=1, method="sinkhorn")(problem)
    assert not bool(out.converged)
    assert float(out.errors[0]) > float(out.threshold)
    rows, columns = out.marginal(1), out.marginal(0)
    off = jnp.abs(rows - A).sum() + jnp.abs(columns - B).sum()
    np.testing.assert_allclose(out.errors[0], off, rtol=1e-9)
    half = pointcloud.PointCloud(X.astype(jnp.float16), Y.astype(jnp.float16))
    half = jaxsns.ott.Solver(threshold=1e-2)(linear_problem.LinearProblem(half))
    for number in (half.f, half.errors, half.reg_ot_cost):
        assert number.dtype == jnp.float16


def test_says_that_ott_is_missing():
    if INSTALLED:
        pytest.skip("ott-jax is installed")
    with pytest.raises(ModuleNotFoundError, match="ott"):
        with jaxsns.ott.in_place_of_sinkhorn():
            pass


@needs_ott
def test_gromov_wasserstein_on_our_solver_is_that_on_theirs():
    from ott.problems.quadratic import quadratic_problem
    from ott.solvers.quadratic import gromov_wasserstein

    problem = quadratic_problem.QuadraticProblem(
        pointcloud.PointCloud(X), pointcloud.PointCloud(Y)
    )
    tight = sinkhorn.Sinkhorn(threshold=1e-10, max_iterations=20_000)
    outs = [
        gromov_wasserstein.GromovWasserstein(
            solver, epsilon=0.05, threshold=1e-8, store_inner_errors=True
        )(problem)
        for solver in (jaxsns.ott.Solver(threshold=1e-10), tight)
    ]
    assert bool(outs[0].converged)
    assert int(outs[0].n_iters) > 1
    np.testing.assert_allclose(outs[0].matrix, outs[1].matrix, atol=1e-6)
    np.testing.assert_allclose(outs[0].reg_gw_cost, outs[1].reg_gw_cost, rtol=1e-6)
    # The same problem is ours with twice the epsilon: they linearise without the 2.
    own = jaxsns.solve_quadratic(
        jaxsns.PointCloud(X, X), jaxsns.PointCloud(Y, Y), epsilon=0.1
    )
    np.testing.assert_allclose(outs[0].matrix, own.plan(), atol=1e-5)
