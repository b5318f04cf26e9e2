"""Derivatives of potentials, plans and values: every input, every mode, any order.

References: central differences of a solve converged to 1e-13 or better, a
pseudo-inverse in NumPy, and unrolled Sinkhorn. Tolerances are ten times or more of
what was measured on jax 0.10.1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references
from jax.test_util import check_grads

import jaxsns

INPUTS = ("cost", "a", "b", "epsilon")
TIGHT = 1e-14


def _weights(n, m, seed=0):
    r = np.random.default_rng(seed)
    return (
        jnp.asarray(r.normal(size=n)),
        jnp.asarray(r.normal(size=m)),
        jnp.asarray(r.normal(size=(n, m))),
    )


OUTPUTS = {
    "value": lambda s, u, v, w: s.value,
    "transport_cost": lambda s, u, v, w: s.transport_cost,
    "primal": lambda s, u, v, w: s.primal_value,
    "potentials": lambda s, u, v, w: jnp.vdot(u, s.f) + jnp.vdot(v, s.g**2),
    "plan": lambda s, u, v, w: jnp.vdot(w, jnp.sin(9 * s.plan())),
    "barycentric": lambda s, u, v, w: jnp.vdot(u, s.barycentric(v)),
    "transposed": lambda s, u, v, w: jnp.vdot(v, s.barycentric(u, axis=0)),
    "apply": lambda s, u, v, w: jnp.vdot(u, s.apply(v) ** 2),
}


def _function(output, n, m):
    """An output of a solve, or several of them stacked: one program for all."""
    weights = _weights(n, m)

    def function(cost, a, b, epsilon):
        # Masses are normalised inside, so that every direction is feasible.
        a, b = a / jnp.sum(a), b / jnp.sum(b)
        solution = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=TIGHT)
        if isinstance(output, str):
            return OUTPUTS[output](solution, *weights)
        return jnp.stack([OUTPUTS[name](solution, *weights) for name in output])

    return function


def _arguments(n, m, seed=0):
    r = np.random.default_rng(seed)
    cost, a, b = r.random((n, m)), r.random(n) + 0.1, r.random(m) + 0.1
    return tuple(jnp.asarray(x) for x in (cost, a, b, 0.05))


@pytest.mark.parametrize(
    ("output", "shape"),
    [(output, (5, 8)) for output in ("value", "transport_cost", "barycentric", "plan")]
    + [(output, (8, 5)) for output in ("potentials", "apply")],
)
def test_first_and_second_order_in_both_modes(output, shape):
    """check_grads order 2: forward, reverse, and each over the other."""
    function = _function(output, *shape)
    arguments = _arguments(*shape)
    check_grads(
        function, arguments, order=2, modes=("fwd", "rev"), atol=1e-5, rtol=1e-4
    )


# Of all outputs, along any direction of any input: two programs for all of them.
_ALL = _function(tuple(OUTPUTS), 5, 8)
_forward = jax.jit(lambda x, direction: jax.jvp(_ALL, x, direction))
_reverse = jax.jit(jax.jacrev(_ALL, argnums=(0, 1, 2, 3)))


@pytest.mark.parametrize("number", range(4), ids=INPUTS)
def test_gradient_against_differences_of_a_converged_solve(number):
    arguments = _arguments(5, 8, seed=1)
    direction = np.random.default_rng(2).normal(size=arguments[number].shape)
    ways = [jnp.zeros_like(x) for x in arguments]
    ways[number] = jnp.asarray(direction) * 0.1

    def along(t):
        moved = [x + t * way for x, way in zip(arguments, ways, strict=True)]
        return _forward(tuple(moved), tuple(ways))

    h = 1e-4
    ends = [along(k * h)[0] for k in (1, -1, 2, -2)]
    reference = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
    got = jnp.tensordot(_reverse(*arguments)[number], ways[number], direction.ndim)
    forward = along(0.0)[1]
    # Measured: 3e-9 (differences), 1e-14 (mode against mode).
    for k, name in enumerate(OUTPUTS):
        close = functools.partial(np.testing.assert_allclose, err_msg=name)
        close(got[k], reference[k], rtol=1e-7, atol=1e-9)
        close(forward[k], got[k], rtol=1e-9, atol=1e-12)


def test_hessians_agree_in_all_compositions():
    function = _function(("value", "potentials", "plan"), 3, 4)
    arguments = _arguments(3, 4, seed=3)
    at = lambda cost: function(cost, *arguments[1:])

    def slopes(cost):
        slope = jax.jacrev(at)(cost)
        return slope, slope

    hessian_and_gradient = jax.jit(jax.jacfwd(slopes, has_aux=True))
    hessian = hessian_and_gradient(arguments[0])[0]
    reverse = jax.jit(jax.jacrev(jax.jacrev(at)))(arguments[0])
    forward = jax.jit(jax.jacfwd(jax.jacfwd(at)))(arguments[0])
    np.testing.assert_allclose(hessian, reverse, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(hessian, forward, rtol=1e-8, atol=1e-9)
    square = np.asarray(hessian).reshape(3, 12, 12)
    np.testing.assert_allclose(square, square.mT, rtol=1e-8, atol=1e-9)
    gradient = lambda cost: hessian_and_gradient(cost)[1]
    step = 1e-5
    bump = np.zeros((3, 4))
    bump[1, 2] = step
    ends = [np.asarray(gradient(arguments[0] + t * bump)) for t in (1, -1)]
    difference = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(hessian[..., 1, 2], difference, rtol=1e-5, atol=1e-6)


def test_third_derivative():
    cost, a, b, _ = _arguments(3, 4)
    function = lambda e: _function("plan", 3, 4)(cost, a, b, e)
    both = jax.jit(jax.value_and_grad(jax.grad(jax.grad(function))))
    third = both(0.05)[1]
    difference = (both(0.05 + 1e-5)[0] - both(0.05 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(third, difference, rtol=1e-6)


def _blocks(t, direction, rate):
    cost, a, b = problems.assignment(direction.shape[0])
    solution = jaxsns.solve(
        cost + t * direction, a, b, epsilon=1 / 1200 + t * rate, tolerance=1e-13
    )
    return jnp.vdot(_weights(*cost.shape)[2], solution.plan())


@jax.jit
def _value_and_slopes(t, direction, rate):
    """Value, and its slope in reverse and in forward mode."""
    along = lambda t: _blocks(t, direction, rate)
    value, forward = jax.jvp(along, (t,), (1.0,))
    return value, jax.grad(along)(t), forward


@pytest.mark.parametrize("n", [30, 100])
@pytest.mark.parametrize("name", ["cost", "epsilon"])
def test_plan_gradient_where_the_plan_splits_into_blocks(n, name):
    """epsilon = 1/1200 on an assignment problem: many near-null vectors, not one."""
    direction, rate = np.zeros((n, n)), 1 / 1200
    if name == "cost":
        direction, rate = np.random.default_rng(5).normal(size=(n, n)), 0.0
    along = lambda t: _value_and_slopes(t, direction, rate)[0]
    h = 1e-5 if name == "cost" else 1e-3
    reference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    # Measured 1e-10 or better; bar 1e-6.
    slopes = _value_and_slopes(0.0, direction, rate)[1:]
    np.testing.assert_allclose(slopes, [reference] * 2, rtol=1e-7)


def test_potential_gradient_at_small_epsilon_with_one_block():
    """epsilon = 1/1200 of the largest cost, plan connected: potentials well-posed."""
    x = np.linspace(0, 1, 40)
    cost = jnp.asarray((x[:, None] - np.linspace(0.003, 1.01, 57)[None]) ** 2)
    direction = np.random.default_rng(0).normal(size=cost.shape) * float(cost.max())
    u, v, _ = _weights(*cost.shape)
    epsilon = float(cost.max()) / 1200

    @jax.jit
    @jax.value_and_grad
    def both(t):
        solution = jaxsns.solve(cost + t * direction, epsilon=epsilon, tolerance=1e-13)
        return jnp.vdot(u, solution.f) + jnp.vdot(v, solution.g)

    along, h = lambda t: both(t)[0], 1e-6
    reference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    np.testing.assert_allclose(both(0.0)[1], reference, rtol=1e-6)


def test_implicit_equals_unrolled():
    cost, a, b, epsilon = _arguments(6, 7)
    a, b = a / jnp.sum(a), b / jnp.sum(b)
    u, v, w = _weights(6, 7)

    def through(potentials, cost):
        f, g = potentials
        plan = jnp.exp((f[:, None] + g[None, :] - cost) / epsilon)
        return jnp.vdot(u, f) + jnp.vdot(v, g) + jnp.vdot(w, plan)

    @jax.jit
    @jax.value_and_grad
    def implicit(cost):
        solution = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=TIGHT)
        return through((solution.f, solution.g), cost)

    @jax.jit
    @jax.value_and_grad
    def unrolled(cost):
        problem = jaxsns.make_problem(cost, a, b, epsilon=epsilon)
        return through(jaxsns.unrolled_sinkhorn(problem, 400), cost)

    (value, slope), (wanted, expected) = implicit(cost), unrolled(cost)
    np.testing.assert_allclose(value, wanted, rtol=1e-11)
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", [(20, 31), (31, 20)])
def test_gradient_against_a_pseudo_inverse(shape):
    n, m = shape
    cost = np.random.default_rng(0).random(shape)
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    u, v, w = _weights(n, m)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(cost):
        s = jaxsns.solve(cost, epsilon=0.02, tolerance=1e-13)
        loss = jnp.vdot(u, s.f) + jnp.vdot(v, s.g) + jnp.vdot(w, s.plan())
        return loss, s.plan()

    got, plan = gradient(jnp.asarray(cost))
    expected, _ = references.cost_gradient(
        np.asarray(plan), a, b, 0.02, np.asarray(u), np.asarray(v), np.asarray(w)
    )
    np.testing.assert_allclose(got, expected, atol=1e-9 * np.abs(expected).max())


def test_gradients_under_vmap_equal_those_alone():
    function = _function(("value", "potentials", "plan"), 5, 8)
    lanes = [_arguments(5, 8, seed) for seed in range(3)]
    stacked = tuple(jnp.stack(x) for x in zip(*lanes, strict=True))
    gradient = jax.jacrev(function, argnums=(0, 1, 2, 3))
    batch = jax.jit(jax.vmap(gradient))(*stacked)
    for k, lane in enumerate(lanes):
        # Not jitted: its parts are compiled for the first test.
        alone = gradient(*lane)
        for got, expected in zip(batch, alone, strict=True):
            np.testing.assert_allclose(got[k], expected, rtol=1e-9, atol=1e-11)


def test_zero_masses_leave_the_gradients_of_the_others_alone():
    """The same numbers as with the atoms removed; zeros, not NaN, at the atoms."""
    cost, a, b = problems.zero_masses()
    keep_a, keep_b = a > 0, b > 0
    weights = np.random.default_rng(0).normal(size=cost.shape)

    def losses(cost, a, b, w):
        s = jaxsns.solve(cost, a, b, epsilon=0.3, tolerance=TIGHT)
        names = ("value", "transport_cost", "plan")
        return jnp.stack([OUTPUTS[name](s, None, None, w) for name in names])

    full = cost, a, b, weights
    inner = cost[keep_a][:, keep_b], a[keep_a], b[keep_b], weights[keep_a][:, keep_b]
    run = jax.jit(jax.jacrev(losses))
    gradients, alone = np.asarray(run(*full)), run(*inner)
    np.testing.assert_allclose(gradients[:, keep_a][..., keep_b], alone, atol=1e-12)
    assert np.all(gradients[:, ~keep_a] == 0)
    assert np.all(gradients[..., ~keep_b] == 0)
    value = jax.grad(lambda *x: losses(*x)[0])
    second = jax.jit(lambda *x: jax.jvp(value, x, jax.tree.map(jnp.ones_like, x)))
    assert np.all(np.isfinite(second(*full)[1]))


def test_value_gradient_needs_no_linear_solve():
    cost, a, b, epsilon = _arguments(70, 80)
    a, b = a / jnp.sum(a), b / jnp.sum(b)

    def value(cost):
        options = jaxsns.NewtonOptions(linear_solver="cg")
        return jaxsns.solve(cost, a, b, epsilon=epsilon, method=options).value

    text = jax.jit(jax.value_and_grad(value)).lower(cost).compile().as_text()
    assert "potrf" not in text
    potential = lambda c: jnp.sum(
        jaxsns.solve(
            c, a, b, epsilon=epsilon, method=jaxsns.NewtonOptions(linear_solver="cg")
        ).f
        ** 2
    )
    other = jax.jit(jax.grad(potential)).lower(cost).compile().as_text()
    assert "potrf" in other


def test_derivative_in_points_and_through_a_relative_epsilon():
    r = np.random.default_rng(0)
    x, y = jnp.asarray(r.normal(size=(7, 3))), jnp.asarray(r.normal(size=(9, 3)))
    direction = jnp.asarray(r.normal(size=x.shape))

    @jax.jit
    @jax.value_and_grad
    def both(t):
        cloud = jaxsns.PointCloud(x + t * direction, y)
        s = jaxsns.solve(cloud, epsilon=0.1, relative_to="std", tolerance=TIGHT)
        return jnp.vdot(s.barycentric(y), s.barycentric(y)) + s.value

    along, h = lambda t: both(t)[0], 1e-4
    reference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
    np.testing.assert_allclose(both(0.0)[1], reference, rtol=1e-8)


def test_failed_solve_gives_nan_not_a_number():
    """A plan that is not finite must not give a finite derivative."""
    cost, a, b, epsilon = _arguments(6, 7)

    def loss(scale):
        bad = jnp.where(scale > 0, jnp.nan, cost)
        s = jaxsns.solve(bad, epsilon=epsilon)
        return jnp.sum(s.f) * scale

    assert np.isnan(jax.jit(jax.grad(loss))(1.0))
