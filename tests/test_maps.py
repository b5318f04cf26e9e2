"""Maps and potentials at new points against dense NumPy and finite differences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy.special import logsumexp, softmax

import jaxsns

EPSILON = 0.4
FACTOR = 0.7
COSTS = {
    "sqeuclidean": lambda x, y: ((x - y) ** 2).sum(-1),
    "euclidean": lambda x, y: np.sqrt(((x - y) ** 2).sum(-1)),
    "l1": lambda x, y: np.abs(x - y).sum(-1),
    "cosine": lambda x, y: (
        1 - (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    ),
}


def _quartic(x, y):
    return jnp.sum((x - y) ** 4)


def _data(d=3, seed=0):
    r = np.random.default_rng(seed)
    a, b = r.random(24) + 0.1, r.random(37) + 0.1
    a[3], b[[0, 8]] = 0, 0
    x, y, new = (r.normal(size=(k, d)) for k in (24, 37, 7))
    return x, y + 1, a / a.sum(), b / b.sum(), new


@functools.cache
def _solved():
    x, y, a, b, _ = _data()
    return jaxsns.solve(jaxsns.PointCloud(x, y), a, b, epsilon=EPSILON)


def _with_cost(name):
    """Change the cost: the sums hold for any potentials, so one solve is enough."""
    solution = _solved()
    cloud = solution.problem.geometry
    geometry = dataclasses.replace(cloud, cost=name, factor=jnp.asarray(FACTOR))
    problem = dataclasses.replace(solution.problem, geometry=geometry)
    return dataclasses.replace(solution, problem=problem, reduced=None)


def _pairwise(name, x, y):
    if callable(name):
        return ((x[:, None] - y[None]) ** 4).sum(-1)
    return COSTS[name](x[:, None], y[None])


@pytest.mark.parametrize("name", [*COSTS, _quartic])
def test_map_and_potential_are_dense_sums(name):
    x, y, a, b, new = _data()
    solution = _with_cost(name)
    f, g = np.asarray(solution.f), np.asarray(solution.g)
    inside = (g[None] - FACTOR * _pairwise(name, new, y)) / EPSILON
    got = jaxsns.transport_map(solution, new)
    np.testing.assert_allclose(got, softmax(inside, axis=1) @ y, rtol=0, atol=1e-12)
    got = jaxsns.c_transform(solution, new)
    np.testing.assert_allclose(
        got, -EPSILON * logsumexp(inside, axis=1), rtol=0, atol=1e-12
    )
    inside = (f[None] - FACTOR * _pairwise(name, new, x)) / EPSILON
    got = jaxsns.transport_map(solution, new, axis=0)
    np.testing.assert_allclose(got, softmax(inside, axis=1) @ x, rtol=0, atol=1e-12)
    got = jaxsns.c_transform(solution, new, axis=0)
    np.testing.assert_allclose(
        got, -EPSILON * logsumexp(inside, axis=1), rtol=0, atol=1e-12
    )


def test_they_extend_what_the_solution_has():
    x, y, a, b, _ = _data()
    solution = jaxsns.solve(
        jaxsns.PointCloud(x, y), a, b, epsilon=EPSILON, tolerance=1e-12
    )
    real = a > 0
    mapped = jaxsns.transport_map(solution, x)
    np.testing.assert_allclose(
        mapped[real], solution.barycentric(y)[real], rtol=1e-11, atol=1e-11
    )
    extended = jaxsns.c_transform(solution, x)[real] + EPSILON * np.log(a[real])
    np.testing.assert_allclose(extended, solution.f[real], rtol=0, atol=1e-12)
    real = b > 0
    mapped = jaxsns.transport_map(solution, y, axis=0)
    expected = solution.barycentric(x, axis=0)[real]
    np.testing.assert_allclose(mapped[real], expected, rtol=0, atol=1e-11)


def test_the_map_is_the_gradient_of_the_potential():
    new, solution = _data()[-1], _solved()
    total = lambda points: jnp.sum(jaxsns.c_transform(solution, points))
    gradient = jax.grad(total)(jnp.asarray(new))
    expected = 2 * (new - jaxsns.transport_map(solution, new))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-12)


def test_a_translation_is_learnt():
    # Points moved by a constant: the unregularised map is known at new points.
    x, y, a, b, _ = _data()
    move = np.array([3.0, -1.0, 2.0])
    y[:24] = x + move
    a[:], b[:] = 1 / 24, np.where(np.arange(37) < 24, 1 / 24, 0)
    solution = jaxsns.solve(jaxsns.PointCloud(x, y), a, b, epsilon=1e-3)
    near = x[:5] + 1e-3
    np.testing.assert_allclose(
        jaxsns.transport_map(solution, near), x[:5] + move, rtol=0, atol=1e-9
    )


def test_hard_transform_is_a_lower_bound():
    x, y, a, b, new = _data()
    cost = _pairwise("sqeuclidean", x, y)
    optimum = references.linear_program(cost, a, b)
    bounds = []
    for epsilon in (1.0, 1e-3):
        solution = jaxsns.solve(jaxsns.PointCloud(x, y), a, b, epsilon=epsilon)
        g = np.asarray(solution.g)
        at_x = jaxsns.c_transform(solution, x, hard=True)
        bounds.append(a @ at_x + b[b > 0] @ g[b > 0])
        at_new = jaxsns.c_transform(solution, new, hard=True)
        expected = (_pairwise("sqeuclidean", new, y) - g[None]).min(1)
        np.testing.assert_allclose(at_new, expected, rtol=0, atol=1e-12)
    assert bounds[0] < bounds[1] <= optimum
    np.testing.assert_allclose(bounds[1], optimum, rtol=0, atol=2e-3)


def test_derivatives_go_through_the_solve():
    x, y, a, b, new = _data()
    r = np.random.default_rng(3)

    def losses(x, y, b, epsilon, new):
        cloud = jaxsns.PointCloud(x, y)
        solution = jaxsns.solve(
            cloud, a, b, epsilon=epsilon, tolerance=1e-13, method="sinkhorn"
        )
        moved = jnp.sum(jnp.sin(jaxsns.transport_map(solution, new)))
        extended = jnp.sum(jnp.sin(jaxsns.c_transform(solution, new)))
        out = jnp.stack([moved, extended])
        return out, out

    point = [jnp.asarray(v, float) for v in (x, y, b, EPSILON, new)]
    steps = [jnp.asarray(r.normal(size=v.shape)) for v in point]
    steps[2] = jnp.where(b > 0, steps[2], 0)
    steps[2] = jnp.where(
        b > 0, steps[2] - jnp.sum(steps[2]) / np.sum(b > 0, dtype=float), 0
    )
    both = jax.jit(jax.jacrev(losses, argnums=tuple(range(5)), has_aux=True))
    gradient = both(*point)[0]
    h = 3e-5  # of fourth order: 3e-9 off, where two points 1e-6 apart are 8e-8 off
    for k in range(5):

        def at(t, k=k):
            moved = (
                v + t * s if i == k else v
                for i, (v, s) in enumerate(zip(point, steps, strict=True))
            )
            return both(*moved)[1]

        reference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
        got = jnp.stack([jnp.vdot(one, steps[k]) for one in gradient[k]])
        np.testing.assert_allclose(got, reference, rtol=2e-8)


def test_no_answer_stays_no_answer():
    new, solution = _data()[-1], _solved()
    nan = dict(f=solution.f * np.nan, g=solution.g * np.nan)
    for factor in (-1, np.nan):
        b = solution.problem.b * factor
        problem = dataclasses.replace(solution.problem, b=b)
        failed = dataclasses.replace(solution, problem=problem, reduced=None, **nan)
        for axis in (0, 1):
            assert np.isnan(jaxsns.transport_map(failed, new, axis=axis)).all()
            assert np.isnan(jaxsns.c_transform(failed, new, axis=axis)).all()
    assert np.isnan(jax.jit(jaxsns.transport_map)(solution, new * np.nan)).all()


def test_bad_arguments_raise_with_their_name():
    new, solution = _data()[-1], _solved()
    problem = dataclasses.replace(solution.problem, geometry=jaxsns.Dense(new))
    matrix = dataclasses.replace(solution, problem=problem, reduced=None)
    with pytest.raises(TypeError, match="solution must come from a PointCloud"):
        jaxsns.transport_map(matrix, new)
    with pytest.raises(ValueError, match=r"points must have shape \[k, d\] with d = 3"):
        jaxsns.transport_map(solution, new[:, :2])
    with pytest.raises(ValueError, match="points must be finite"):
        jaxsns.c_transform(solution, new * np.nan)
    with pytest.raises(ValueError, match="axis must be 0 or 1"):
        jaxsns.c_transform(solution, new, axis=-1)
    with pytest.raises(TypeError, match="hard must be"):
        jaxsns.c_transform(solution, new, hard=1)
