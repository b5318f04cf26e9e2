"""Grids: stages against NumPy, answers against references, derivatives as of Dense."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import plan, sinkhorn, unbalanced
from scipy.special import logsumexp

import jaxsns
from jaxsns import Dense, Grid, Status
from jaxsns.geometry import axis_kernel
from jaxsns.implicit import potentials

R = np.random.default_rng(0)
X = np.sort(np.random.default_rng(1).random(6)), np.linspace(0, 1, 5)
Y = np.linspace(0, 1, 5), np.sort(np.random.default_rng(2).random(4))
PLANE = Grid(tuple(map(jnp.asarray, X)), tuple(map(jnp.asarray, Y)))
A, B = (np.random.default_rng(3).random(s) + 0.1 for s in ((6, 5), (5, 4)))
A, B = A / A.sum(), B / B.sum()


def matrix(x, y, function):
    """Costs of all pairs of grid points, in C order, from nothing but coordinates."""
    x, y = (
        np.stack([v.ravel() for v in np.meshgrid(*axes, indexing="ij")], axis=1)
        for axes in (x, y)
    )
    return function(np.abs(x[:, None] - y[None])).sum(-1)


H = 1e-5  # a step for central differences: their error is 1e-9 of the third one
COST = matrix(X, Y, np.square)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_tile_drops_is_negligible_for_every_line(dtype):
    cost = (np.linspace(0, 1, 8)[:, None] - np.linspace(0, 1, 8)[None]) ** 2
    # The largest spread of a tile that is taken for safe, and logarithms under which
    # terms that weigh alike for one row are far apart for another.
    cost *= (
        0.99
        * axis_kernel.largest_spread(dtype)
        / np.ptp(cost - cost[4:5] - cost[:, 4:5])
    )
    run = jax.jit(
        lambda c, l: (
            axis_kernel.tile(c, 1).safe,
            axis_kernel.log_sums(axis_kernel.tile(c, 1), l),
        )
    )
    ramp = axis_kernel.largest_spread(dtype) * np.linspace(0, 1, 8)
    for share in (-0.1, -0.05, -0.02, 0, 0.02, 0.05, 0.1):
        log = (cost + share * ramp[None]).T
        safe, sums = run(np.asarray(cost, dtype), np.asarray(log, dtype))
        assert safe[0]
        exact = np.log(np.exp(log[None] - cost[:, :, None]).sum(1))
        atol = 2e-4 if dtype == np.float32 else 1e-11
        np.testing.assert_allclose(sums, exact, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_stage_in_both_of_its_forms(dtype):
    cost = (np.linspace(0, 1, 19)[:, None] - np.linspace(0, 2, 17)[None]) ** 2
    cost = cost + R.random((19, 1)) + R.random((1, 17))
    log, v, u = R.normal(size=(17, 3)), R.normal(size=(3, 17)), R.normal(size=(19, 3))
    factor = R.random((19, 17))

    @jax.jit
    def ours(cost, log, v, u, factor):
        tiles = axis_kernel.tile(cost, axis_kernel.number_of_tiles(cost.dtype))
        s = axis_kernel.axis_kernel(tiles, log)
        times = [axis_kernel.apply(s, v, f, p) for f, p in ((None, 1), (factor, 1))]
        back = [
            axis_kernel.apply_transposed(s, u, f, p)
            for f, p in ((None, 2), (factor, 1))
        ]
        return tiles.safe, axis_kernel.log_sums(tiles, log), s.log_out, *times, *back

    # All in tiles; all but squares; nothing.
    scales = (1e3, 2.3e3, 1e6) if dtype == np.float32 else (2e3, 5e3, 1e6)
    kinds = [True, True], [True, False], [False, False]
    for scale, fits in zip(scales, kinds, strict=True):
        given = [
            np.asarray(x, dtype) for x in (scale * cost, scale * log, v, u, factor)
        ]
        safe, sums, out, *found = ours(*given)
        assert list(map(bool, safe)) == fits
        c, log_in = (np.asarray(x, float) for x in given[:2])
        expected = logsumexp(log_in[None] - c[:, :, None], axis=1)
        weights = np.exp(log_in[None] - c[:, :, None] - expected[:, None])
        # Exponents of size scale round, and that moves weights.
        far = 20 * scale * np.finfo(dtype).eps
        np.testing.assert_allclose(sums, expected, atol=far)
        np.testing.assert_allclose(out, expected, atol=far)
        named = [
            np.einsum("ijr,rj->ir", weights, v),
            np.einsum("ijr,rj,ij->ir", weights, v, factor),
            np.einsum("ijr,ir->rj", weights**2, u),
            np.einsum("ijr,ir,ij->rj", weights, u, factor),
        ]
        for got, want in zip(found, named, strict=True):
            np.testing.assert_allclose(got, want, atol=far, rtol=far)


@pytest.mark.parametrize(
    ("cost", "function"),
    [("sqeuclidean", np.square), ("l1", np.abs), (1.5, lambda d: d**1.5)],
)
def test_costs(cost, function):
    grid = dataclasses.replace(PLANE, cost=cost)
    expected = matrix(X, Y, function)
    np.testing.assert_allclose(grid.dense().cost, expected, atol=1e-14)
    np.testing.assert_allclose(grid.transposed().dense().cost, expected.T, atol=1e-14)
    some = jnp.asarray([7, 0, 29])
    np.testing.assert_allclose(grid.rows(some), expected[[7, 0, 29]], atol=1e-14)
    number = functools.partial(grid.scaled, jnp.asarray(2.0))
    np.testing.assert_allclose(number().dense().cost, 2 * expected, atol=1e-14)


def check(solution, cost, a, b, epsilon, atol=1e-9):
    f, g = sinkhorn(cost, a.ravel(), b.ravel(), epsilon)
    expected = plan(cost, f, g, epsilon)
    assert bool(solution.converged)
    np.testing.assert_allclose(solution.f, f, atol=atol)
    np.testing.assert_allclose(solution.g, g, atol=atol)
    unit = jnp.eye(expected.shape[1], dtype=solution.f.dtype)
    np.testing.assert_allclose(solution.apply(unit), expected, atol=atol)
    v = np.linspace(-1, 1, expected.shape[0])
    np.testing.assert_allclose(solution.apply(v, axis=0), v @ expected, atol=atol)
    np.testing.assert_allclose(
        solution.transport_cost, (cost * expected).sum(), atol=atol
    )
    value = (cost * expected).sum()
    real = expected > 0
    value += epsilon * (expected[real] * (np.log(expected[real]) - 1)).sum()
    np.testing.assert_allclose(solution.value, value, atol=atol)
    np.testing.assert_allclose(solution.primal_value, value, atol=atol)
    for got, want in zip(solution.marginals(), (a, b), strict=True):
        np.testing.assert_allclose(got, want.ravel(), atol=atol)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
def test_images_against_the_reference(method):
    grid, a, b, cost = PLANE, A, B, COST
    epsilon = 0.02 * cost.max()
    solution = jaxsns.solve(grid, a, b, epsilon=epsilon, method=method)
    check(solution, cost, a, b, epsilon)
    assert grid.on_grid(solution.f).shape == a.shape
    centre_x = solution.barycentric(jnp.asarray(np.repeat(X[0], 5)), axis=0)
    expected = plan(cost, np.asarray(solution.f), np.asarray(solution.g), epsilon)
    expected = expected.T @ np.repeat(X[0], 5) / expected.sum(0)
    np.testing.assert_allclose(centre_x, expected, rtol=1e-10)


def test_a_volume_with_empty_voxels():
    x = tuple(R.random(n) for n in (3, 4, 2))
    cost = matrix(x, x, np.square)
    a, b = R.random((3, 4, 2)), R.random((3, 4, 2))
    a[0], b[:, :2, 1], a[1, 2, 1] = 0, 0, 0
    a, b = a / a.sum(), b / b.sum()
    epsilon = 0.01 * cost.max()
    solution = jaxsns.solve(Grid(x), a, b.ravel(), epsilon=epsilon)
    check(solution, cost, a, b, epsilon)
    assert np.all(np.isneginf(solution.f) == (a.ravel() == 0))


def test_epsilon_so_small_that_exponentials_are_needed():
    """The same compiled program; the other form of the stages."""
    epsilon = 1e-6 * COST.max()
    ours = jaxsns.solve(PLANE, A, B, epsilon=epsilon, tolerance=1e-8)
    tiles = axis_kernel.tile(
        PLANE.axes()[0] / epsilon, axis_kernel.number_of_tiles(PLANE.dtype)
    )
    assert not bool(tiles.safe[0])
    dense = jaxsns.solve(COST, A.ravel(), B.ravel(), epsilon=epsilon, tolerance=1e-8)
    assert bool(ours.converged)
    assert bool(dense.converged)
    np.testing.assert_allclose(ours.value, dense.value, rtol=1e-9)
    unit = jnp.eye(20)
    np.testing.assert_allclose(ours.apply(unit), dense.plan(), atol=1e-8)


def test_penalised_marginals():
    epsilon, rho = 0.05, R.random((6, 5)) + 0.2
    solution = jaxsns.solve(
        PLANE, 2 * A, B, epsilon=epsilon, rho_a=rho, rho_b=0.5, tolerance=1e-11
    )
    f, g = unbalanced(COST, 2 * A.ravel(), B.ravel(), epsilon, rho.ravel(), 0.5)
    np.testing.assert_allclose(solution.f, f, atol=1e-9)
    np.testing.assert_allclose(solution.g, g, atol=1e-9)


def test_float32():
    epsilon = 0.02 * COST.max()
    grid = PLANE.astype(jnp.float32)
    a, b = A.astype(np.float32), B.astype(np.float32)
    solution = jaxsns.solve(grid, a, b, epsilon=epsilon)
    assert solution.f.dtype == jnp.float32
    check(solution, COST, A, B, epsilon, atol=3e-6)


def both(loss):
    """The loss of costs along the axes on a grid, and on the matrix that they make."""

    def dense(matrices, *rest):
        first, second = matrices
        cost = first[:, None, :, None] + second[None, :, None, :]
        return loss(Dense(cost.reshape(30, 20)), *rest)

    return (lambda matrices, *rest: loss(Grid(matrices=matrices), *rest)), dense


W = jnp.asarray(np.random.default_rng(5).normal(size=(20, 2)))


def losses(geometry, logits, epsilon):
    a = jax.nn.softmax(logits)
    b = B.ravel() * (np.arange(20) != 7)
    s = jaxsns.solve(geometry, a, b / b.sum(), epsilon=epsilon, tolerance=1e-12)
    odd = jnp.sum(jnp.sin(3 * s.f)) + jnp.sum(jnp.where(b > 0, s.g, 0) ** 2)
    odd = odd + s.transport_cost
    return s.value, odd + jnp.sum(s.apply(W) ** 2)


def test_derivatives_against_dense():
    matrices = PLANE.axes()
    logits, epsilon = jnp.asarray(R.normal(size=30)), jnp.asarray(0.05)
    grid, dense = both(losses)
    got, want = (
        jax.jit(jax.jacrev(f, argnums=(0, 1, 2)))(matrices, logits, epsilon)
        for f in (grid, dense)
    )
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-8 * (1 + np.abs(y).max()))


def test_the_gauge_component_of_a_right_side_is_dropped():
    """By products alone, where conjugate gradients would run away along it."""
    f, g = (jnp.asarray(0.1 * R.normal(size=k)) for k in (30, 20))
    top, bottom = (jnp.asarray(R.normal(size=k)) for k in (30, 20))
    weights = [jnp.asarray(R.normal(size=k)) for k in (30, 20)]

    def solve(f, top, bottom):
        kernel, v = PLANE.formed().plan_kernel(f, g, jnp.asarray(0.1))
        return potentials.solve_with(
            kernel, v, kernel.sums(v), top, bottom, potentials.BALANCED,
            potentials.solve_stored,
        )  # fmt: skip

    @jax.jit
    def run(f, top, bottom, weights):
        out, back = jax.vjp(functools.partial(solve, f), top, bottom)
        slope = jax.jvp(lambda f: solve(f, top, bottom), (f,), (weights[0],))[1]
        return out, back(weights), slope

    (u, v), back, slope = run(f, top, bottom, tuple(weights))
    whole = plan(COST, np.asarray(f), np.asarray(g), 0.1)
    rows, columns = whole.sum(1), whole.sum(0)
    hessian = np.block([[np.diag(rows), whole], [whole.T, np.diag(columns)]])
    # Totals are made equal in proportion to the rows.
    more = (top.sum() - bottom.sum()) * rows / rows.sum()
    right = np.concatenate([top - more, bottom])
    x = np.linalg.lstsq(hessian, right, rcond=1e-10)[0]
    np.testing.assert_allclose(
        u[:, None] + v[None], x[:30, None] + x[None, 30:], atol=1e-8 * np.abs(x).max()
    )
    # Reverse mode is the transposed: the system is symmetric, weights have a gauge too.
    forward = weights[0] @ u + weights[1] @ v
    backward = back[0] @ top + back[1] @ bottom
    np.testing.assert_allclose(forward, backward, rtol=1e-8)
    # What is dropped depends on the plan, and so does its derivative.
    steps = [run(f + h * weights[0], top, bottom, tuple(weights))[0] for h in (H, -H)]
    difference = [(p - q) / (2 * H) for p, q in zip(*steps, strict=True)]
    moved, expected = (s[0][:, None] + s[1][None] for s in (slope, difference))
    np.testing.assert_allclose(moved, expected, atol=1e-6 * np.abs(expected).max())


def test_second_derivatives_of_the_value():
    matrices = PLANE.axes()
    logits, epsilon = jnp.asarray(R.normal(size=30)), jnp.asarray(0.05)
    where = (matrices, logits, epsilon)
    along = jax.tree.map(lambda x: jnp.asarray(R.normal(size=x.shape)), where)

    def second(f):
        gradient = jax.grad(lambda *args: f(*args)[0], argnums=(0, 1, 2))
        return jax.jit(lambda p, t: jax.jvp(gradient, p, t)[1])(where, along)

    got, want = map(second, both(losses))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-8 * (1 + np.abs(y).max()))


def sizes(jaxpr):
    """Sizes of all arrays in a program and the programs inside it."""
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from sizes(inner)


def test_no_program_holds_an_array_of_all_pairs():
    axis = jnp.linspace(0, 1, 16)

    def loss(a, x):
        s = jaxsns.solve(Grid((x, x)), a, epsilon=0.01)
        return s.value + s.transport_cost + jnp.sum(s.f**2) + jnp.sum(s.apply(a))

    program = jax.make_jaxpr(jax.value_and_grad(loss, argnums=(0, 1)))
    a = jnp.full(256, 1 / 256)
    found = list(sizes(program(a, axis).jaxpr))
    # 16^3 exponentials where tiles do not do; 4 x 16 x 16 weights of tiles.
    assert len(found) > 1000
    assert max(found) <= 4 * 16**3


@pytest.mark.parametrize("scale", ["max", "mean", "std"])
def test_scales(scale):
    a, b = A.copy(), B.copy()
    a[0], b[:, 0], b[2, 3] = 0, 0, 0
    a, b = a / a.sum(), b / b.sum()
    real = COST[a.ravel() > 0][:, b.ravel() > 0]
    problem = jaxsns.make_problem(PLANE, a, b, epsilon=0.1, relative_to=scale)
    np.testing.assert_allclose(problem.epsilon, 0.1 * getattr(np, scale)(real))
    box = np.sort(matrix([v[1:] if k == 0 else v for k, v in enumerate(X)],
                         [Y[0], Y[1][1:]], np.square).ravel())  # fmt: skip
    spread = jaxsns.geometry.grid_statistics.spread(
        PLANE, jnp.asarray(a.ravel() > 0), jnp.asarray(b.ravel() > 0)
    )
    np.testing.assert_allclose(spread, box[-1] - box[0], rtol=1e-12)


def test_lanes_and_statuses():
    many = np.stack([A, A[::-1], np.full_like(A, 1 / 30)])
    many[1, 0, 0] = -1

    @jax.vmap
    def run(a):
        return jaxsns.solve(PLANE, a.reshape(-1), B, epsilon=0.1)

    lanes = run(jnp.asarray(many))
    names = [Status(int(s)) for s in lanes.status]
    assert names == [Status.CONVERGED, Status.INVALID_INPUT, Status.CONVERGED]
    alone = jaxsns.solve(PLANE, A, B, epsilon=0.1)
    np.testing.assert_allclose(lanes.f[0], alone.f, atol=1e-12)
    np.testing.assert_allclose(lanes.value[0], alone.value, atol=1e-12)
    assert np.isnan(lanes.f[1]).all()
    few = jaxsns.solve(PLANE, A, B, epsilon=1e-3, max_steps=2)
    assert Status(int(few.status)) == Status.MAX_STEPS
    bad = jax.jit(lambda x: jaxsns.solve(Grid((x, x)), epsilon=0.1).status)
    assert Status(int(bad(jnp.asarray([0.0, jnp.nan])))) == Status.NONFINITE


def test_parts_of_the_plan():
    solution = jaxsns.solve(PLANE, A, B, epsilon=0.1)
    full = np.asarray(solution.plan())
    for axis, expected in ((1, full.argmax(1)), (0, full.argmax(0))):
        np.testing.assert_array_equal(jaxsns.argmax_matching(solution, axis), expected)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Grid(X, cost="euclidean"), ValueError, "cost of a grid"),
        (lambda: Grid(X, cost=0.5), ValueError, "at least 1"),
        (lambda: Grid(X, cost=lambda x, y: 0), TypeError, "matrices of the axes"),
        (lambda: Grid(X, tiles=0), ValueError, "tiles must be a positive integer"),
        (lambda: Grid(np.ones(3)), TypeError, "x of a Grid must be a tuple"),
        (lambda: Grid(), TypeError, "x of a Grid must be a tuple"),
        (lambda: Grid(X * 2), TypeError, "1 to 3 arrays, one an axis; got 4"),
        (lambda: Grid((np.ones((2, 2)),)), ValueError, r"x\[0\] must have shape"),
        (lambda: Grid(X, X[:1]), ValueError, "as many axes; got 2 and 1"),
        (lambda: Grid(matrices=X), ValueError, r"matrices\[0\] must have shape"),
        (lambda: Grid(X, matrices=X), TypeError, "not both"),
        (lambda: Grid((np.array([0, np.inf]),)), ValueError, r"x\[0\] must be finite"),
        (lambda: Grid(matrices=(np.array([[0, np.inf]]),)), ValueError,
         r"matrices\[0\] must be finite"),
    ],
)  # fmt: skip
def test_bad_grids(make, error, message):
    with pytest.raises(error, match=message):
        jaxsns.make_problem(make(), epsilon=0.1)


def test_what_a_grid_cannot_do():
    with pytest.raises(ValueError, match="a must have shape"):
        jaxsns.solve(PLANE, A.T, B, epsilon=0.1)
    with pytest.raises(ValueError, match="median"):
        jaxsns.solve(PLANE, A, B, epsilon=0.1, relative_to="median")
    with pytest.raises(ValueError, match="'sns' needs the entries"):
        jaxsns.solve(PLANE, A, B, epsilon=0.1, method="sns")
    for name in ("cholesky",):
        options = jaxsns.NewtonOptions(linear_solver=name)
        with pytest.raises(ValueError, match=f"'{name}' needs the entries"):
            jaxsns.solve(PLANE, A, B, epsilon=0.1, method=options)
