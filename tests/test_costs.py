"""Costs of two points: what they may return, parameters as data, and memory."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import jaxsns
from jaxsns import PointCloud, Status, costs
from jaxsns.geometry import costs as module
from jaxsns.geometry import learnable
from tests import references

R = np.random.default_rng(0)
N, M, D = 12, 15, 3
EPSILON = 0.5
FAR = 3.0  # beyond it a pair is forbidden
DTYPES = [jnp.float64, jnp.float32]


def _points(dtype=jnp.float64, n=N, m=M, d=D):
    r = np.random.default_rng(1)
    x, y = r.uniform(-1, 1, size=(n, d)), r.uniform(-1, 1, size=(m, d))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def _squares(x, y):
    return cdist(np.asarray(x, float), np.asarray(y, float), "sqeuclidean")


def _reference(cost, epsilon=EPSILON):
    n, m = cost.shape
    with np.errstate(invalid="ignore"):
        f, g = references.sinkhorn(cost, np.full(n, 1 / n), np.full(m, 1 / m), epsilon)
    return references.plan(cost, f, g, epsilon)


def _near_only(u, v):
    square = jnp.sum((u - v) ** 2)
    return jnp.where(square > FAR, jnp.inf, square)


@functools.partial(jax.jit, static_argnums=0)
def _answers(streamed, x, y, factor, max_steps):
    def cost(x, factor):
        cloud = PointCloud(x, y, _near_only, factor, streamed=streamed, block=4)
        solution = jaxsns.solve(cloud, epsilon=EPSILON, max_steps=max_steps)
        return solution.transport_cost, (solution, solution.barycentric(y))

    slopes, (solution, means) = jax.grad(cost, (0, 1), has_aux=True)(x, factor)
    default = jaxsns.make_problem(solution.problem.geometry).epsilon
    return solution, means, default, slopes


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_infinite_cost_forbids_the_pair_stored_and_streamed(dtype):
    x, y = _points(dtype)
    cost = _squares(x, y)
    cost = np.where(cost > FAR, np.inf, cost)
    assert 0.05 < np.isinf(cost).mean() < 0.5
    plan = _reference(cost)
    real = np.isfinite(cost)
    tolerance = 1e-9 if dtype == jnp.float64 else 2e-5
    both = [_answers(k, x, y, jnp.ones((), dtype), 1000) for k in (False, True)]
    for solution, means, default, _ in both:
        assert solution.status == Status.CONVERGED
        np.testing.assert_allclose(
            solution.transport_cost, plan[real] @ cost[real], rtol=tolerance
        )
        expected = plan @ np.asarray(y, float) * N
        np.testing.assert_allclose(means, expected, atol=10 * tolerance)
        np.testing.assert_allclose(default, 0.05 * cost[real].std(), rtol=1e-5)
        largest = jaxsns.largest_entries(solution, M).matrix.todense()
        np.testing.assert_allclose(largest, plan, atol=tolerance)
    for mine, theirs in zip(both[0][3], both[1][3], strict=True):
        assert np.all(np.isfinite(theirs))
        np.testing.assert_allclose(mine, theirs, atol=100 * tolerance)


def test_no_mass_is_sent_to_a_forbidden_pair_where_nothing_else_is_left():
    x, y = _points()
    x = x.at[0].add(10)  # all its pairs are forbidden
    for streamed in (False, True):
        # The program of the test before.
        assert not _answers(streamed, x, y, jnp.ones(()), 50)[0].converged
        cloud = PointCloud(x, y, _near_only, streamed=streamed)
        free = jaxsns.solve(cloud, epsilon=EPSILON, rho_a=1.0, rho_b=1.0)
        assert free.converged
        rows = free.apply(jnp.ones(M))
        assert float(rows[0]) == 0
        assert np.all(rows[1:] > 0)


def _compare(u, v):
    return u[0] > v[0]


def _count(u, v):
    return jnp.sum(u > v)


@pytest.mark.parametrize("cost", [_compare, _count])
def test_costs_that_are_whole_numbers(cost):
    x, y = _points(jnp.float32)
    greater = np.asarray(x)[:, None] > np.asarray(y)[None]
    expected = greater[..., 0] if cost is _compare else greater.sum(-1)
    for streamed in (False, True):
        cloud = PointCloud(x, y, cost, streamed=streamed)
        assert cloud.dense().cost.dtype == jnp.float32
        np.testing.assert_array_equal(cloud.dense().cost, expected)
        block = cloud.in_blocks().cost_block(y)
        np.testing.assert_array_equal(block, expected.T)
        assert block.dtype == jnp.float32


@pytest.mark.parametrize(
    ("cost", "error", "words"),
    [
        (lambda u, v: (u - v)[:1], ValueError, r"number \[\]; got shape \[1\]"),
        (jnp.outer, ValueError, r"\[3\], \[3\].* got shape \[3, 3\]"),
        (lambda u, v: u[:, None, :] - v, TypeError, "it raised IndexError"),
        (
            lambda u, v: jax.lax.complex(u[0], v[0]),
            TypeError,
            "real; got dtype complex",
        ),
        (lambda u, v: (u[0], v[0]), TypeError, "got tuple"),
        (lambda u: u[0], TypeError, "it raised TypeError"),
    ],
)
def test_what_is_no_cost_of_two_points_is_refused_by_name(cost, error, words):
    for run in (jaxsns.make_problem, lambda c: jax.jit(jaxsns.make_problem)(c)):
        with pytest.raises(error, match="cost must map two points.*" + words):
            run(PointCloud(*_points(), cost))


def test_a_traced_value_that_is_gone_is_refused_by_name():
    kept = []
    jax.jit(lambda w: kept.append(lambda u, v: w * jnp.sum((u - v) ** 2)))(2.0)
    with pytest.raises(TypeError, match="cost must map .* holds a traced value"):
        jaxsns.solve(PointCloud(*_points(), kept[0]), epsilon=EPSILON)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Mahalanobis:
    root: jax.Array

    def __call__(self, u, v):
        return jnp.sum((self.root @ (u - v)) ** 2)


ROOT = np.random.default_rng(2).normal(size=(D, D))
KINDS = {
    "closure": lambda root: lambda u, v: jnp.sum((root @ (u - v)) ** 2),
    "partial": lambda root: jax.tree_util.Partial(
        lambda root, u, v: jnp.sum((root @ (u - v)) ** 2), root
    ),
    "dataclass": Mahalanobis,
}


def _value(kind, streamed, root):
    x, y = _points(root.dtype)
    cloud = PointCloud(x, y, KINDS[kind](root), streamed=streamed)
    return jaxsns.solve(cloud, epsilon=EPSILON).value


@functools.partial(jax.jit, static_argnums=(0, 1))
def _derivatives(kind, streamed, root, way):
    slope = jax.value_and_grad(functools.partial(_value, kind, streamed))
    first, second = jax.jvp(slope, (root,), (way,))
    lanes = jax.vmap(slope)(jnp.stack([2 * root, root]))
    return first, second, lanes


def _exact(root):
    """Value and its gradient: sum of the plan times derivatives of the costs."""
    x, y = (np.asarray(p, float) for p in _points())
    difference = x[:, None] - y[None]
    cost = ((difference @ root.T) ** 2).sum(-1)
    plan = _reference(cost)
    outer = np.einsum("ij,ijk,ijl->kl", plan, difference, difference)
    value = (plan * cost).sum() + EPSILON * (plan * (np.log(plan) - 1)).sum()
    return value, 2 * root @ outer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_have_derivatives_of_first_and_second_order(kind, streamed, dtype):
    if dtype == jnp.float32 and (kind != "closure" or not streamed):
        pytest.skip("the same program in another dtype")
    root, way = jnp.asarray(ROOT, dtype), jnp.ones((D, D), dtype)
    (value, slope), (change, curve), lanes = _derivatives(kind, streamed, root, way)
    right, gradient = _exact(ROOT)
    h = 1e-4
    ends = [_exact(ROOT + s * h)[1] for s in (1, -1)]
    tolerance = 1e-8 if dtype == jnp.float64 else 1e-3
    close = functools.partial(np.testing.assert_allclose, rtol=tolerance)
    close(value, right)
    close(slope, gradient, atol=tolerance)
    close(change, gradient.sum())
    close(curve, (ends[0] - ends[1]) / (2 * h), atol=100 * tolerance)
    close(lanes[0][1], value)
    close(lanes[1][1], slope, atol=tolerance)
    close(lanes[0][0], _exact(2 * ROOT)[0])


class Weighted:
    """An object whose weights change and that nobody registered."""

    def __init__(self):
        self.weights, self.scale = np.ones(D), 1.0

    def __call__(self, u, v):
        return self.scale * jnp.sum(self.weights * (u - v) ** 2)


def test_an_object_whose_weights_changed_gives_the_new_answer():
    x, y = _points()
    cost = Weighted()
    for factor in (1.0, 3.0):
        cost.weights[:] = factor
        cost.scale = factor
        cloud = PointCloud(x, y, cost, streamed=False)
        expected = factor**2 * _squares(x, y)
        solution = jaxsns.solve(cloud, epsilon=EPSILON)
        np.testing.assert_allclose(cloud.dense().cost, expected, rtol=1e-12)
        np.testing.assert_allclose(solution.plan(), _reference(expected), atol=1e-10)
        again = pickle.loads(pickle.dumps(solution.problem))
        assert jax.tree.structure(again) == jax.tree.structure(solution.problem)


def test_costs_are_equal_if_they_do_the_same():
    def settled(cost):
        return learnable.settled(cost, D, jnp.dtype(jnp.float64))

    def fresh(root, p=2):
        inside = jax.jit(lambda z: jax.nn.relu(z) ** p)
        return lambda u, v: jnp.sum(inside(root @ (u - v)))

    structure = lambda cost: jax.tree.structure(settled(cost))
    root = jnp.asarray(ROOT)
    closed = KINDS["closure"]
    assert structure(closed(root)) == structure(closed(2 * root))
    assert structure(closed(root)) != structure(lambda u, v: jnp.sum(root @ (u - v)))
    assert structure(fresh(root)) != structure(fresh(root, p=3))
    same = fresh(root)
    assert structure(same) == structure(same)
    one, other = (settled(lambda u, v, c=c: c * u[0] * v[0]) for c in (1.0, 2.0))
    assert jax.tree.structure(one) != jax.tree.structure(other)


def test_a_cost_that_is_data_enters_functions_as_data():
    x, y = _points()
    traces = []

    @jax.jit
    def value(cloud):
        traces.append(1)
        return jnp.sum(cloud.dense().cost)

    for factor in (1, 2):
        cloud = PointCloud(x, y, Mahalanobis(factor * jnp.eye(D)))
        np.testing.assert_allclose(value(cloud), factor**2 * _squares(x, y).sum())
    assert len(traces) == 1
    slopes = jax.grad(value)(PointCloud(x, y, Mahalanobis(jnp.eye(D))))
    assert slopes.cost.root.shape == (D, D)


NAMES = [*costs.NAMED, "pnorm"]
SCIPY = {"sqeuclidean": "sqeuclidean", "euclidean": "euclidean", "l1": "cityblock"}


def _expected(name, x, y):
    x, y = np.asarray(x, float), np.asarray(y, float)
    if name == "dot":
        return -x @ y.T
    if name == "pnorm":
        return cdist(x, y, "minkowski", p=1.5)
    return cdist(x, y, SCIPY.get(name, name))


@pytest.mark.parametrize("name", NAMES)
def test_costs_made_in_blocks_are_those_of_scipy(name, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 5 * 15 * 40)  # rows in fives, and two more
    cost = costs.pnorm(1.5) if name == "pnorm" else name
    x, y = _points(d=40)
    y = y.at[:3].set(x[:3]).at[7].set(x[2])  # pairs that coincide
    weights = jnp.asarray(R.normal(size=(N, M)))

    def total(x, y):
        return jnp.sum(weights * PointCloud(x, y, cost).dense().cost)

    def naive(x, y):
        pairs = module.PAIRS.get(name) or cost.pairs
        return jnp.sum(weights * pairs(x[:, None], y[None]))

    f, e = jnp.asarray(R.normal(size=N)), jnp.asarray(0.7)
    rows, columns = np.arange(4)[:, None], np.arange(8).reshape(4, 2)

    @jax.jit
    def everything(x, y):
        streamed = PointCloud(x, y, cost).scaled(jnp.asarray(1.5)).in_blocks()
        block = streamed.reduced_block(f, e, y)
        taken = streamed.pair_costs(jnp.asarray(rows), jnp.asarray(columns))
        slopes = [jax.grad(g, (0, 1))(x, y) for g in (total, naive)]
        return PointCloud(x, y, cost).dense().cost, slopes, block, taken

    got, slopes, block, taken = everything(x, y)
    expected = _expected(name, x, y)
    np.testing.assert_allclose(got, expected, atol=2e-13)
    for mine, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    z = (np.asarray(f)[:, None] - 1.5 * expected) / 0.7
    np.testing.assert_allclose(block, z.T, atol=1e-11)
    wanted = np.take_along_axis(1.5 * expected[:4], columns, axis=1)
    np.testing.assert_allclose(taken, wanted, atol=1e-12)


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def _total_distance(x, y):
    distances = costs.NAMED["euclidean"](x, y)
    return jnp.sum(distances), distances


@pytest.mark.parametrize("d", [3, 40])
def test_distances_that_are_small_keep_their_digits_in_float32(d):
    x, _ = _points(jnp.float32, d=d)
    for shift, copies in ((0.0, 1), (1e-3, 1), (1e-3, 2)):
        y = jnp.concatenate([x + jnp.float32(shift)] * copies)
        (got, distances), slope = _total_distance(x, y)
        one = _expected("euclidean", x, y)
        np.testing.assert_allclose(got, one.sum(), rtol=1e-6)
        np.testing.assert_allclose(distances, one, rtol=2e-5, atol=0)
        difference = np.asarray(x, float)[:, None] - np.asarray(y, float)[None]
        inverse = np.where(one > 0, 1 / np.where(one > 0, one, 1), 0)
        expected = (difference * inverse[..., None]).sum(1)
        np.testing.assert_allclose(slope, expected, atol=2e-4)


@pytest.mark.parametrize("name", ["euclidean", "l1", "pnorm", "own"])
def test_no_array_has_a_number_for_every_pair_and_coordinate(name):
    d, n = 100, 300
    kinds = {"pnorm": costs.pnorm(1.5), "own": lambda u, v: jnp.sum((u - v) ** 4)}
    cost = kinds.get(name, name)
    point = jax.ShapeDtypeStruct((n, d), jnp.float32)

    def total(x, y):
        return jnp.sum(jnp.sin(PointCloud(x, y, cost).dense().cost))

    program = jax.jit(jax.grad(total, (0, 1))).lower(point, point).compile()
    used = program.memory_analysis().temp_size_in_bytes
    assert used < n * n * d * 4 / 2


def test_dot_streamed_is_dot_stored():
    x, y = _points()
    answers = []
    for streamed in (False, True):

        @jax.jit
        def run(x, streamed=streamed):
            def value(x):
                cloud = PointCloud(x, y, "dot", streamed=streamed, block=4)
                solution = jaxsns.solve(cloud, epsilon=0.1)
                return solution.value, solution

            (_, solution), slope = jax.value_and_grad(value, has_aux=True)(x)
            return solution.status, solution.transport_cost, slope

        answers.append(run(x))
    plan = _reference(-np.asarray(x) @ np.asarray(y).T, 0.1)
    for status, cost, slope in answers:
        assert status == Status.CONVERGED
        np.testing.assert_allclose(
            cost, -np.sum(plan * (np.asarray(x) @ np.asarray(y).T)), rtol=1e-9
        )
        np.testing.assert_allclose(slope, -plan @ np.asarray(y), atol=1e-9)


def test_potentials_cannot_cancel_what_stands_for_a_forbidden_pair():
    x, y = _points()
    y = y.at[0].add(10)  # all its pairs are forbidden
    streamed = PointCloud(x, y, _near_only, block=4).in_blocks()
    e, f = jnp.asarray(EPSILON), jnp.zeros(N)
    g = streamed.softmin(f, e, 0)  # makes the columns 1, if it can
    expected = np.where(np.arange(M) > 0, 1.0, 0.0)
    columns = streamed.marginals(f, g, e)[1]
    np.testing.assert_allclose(columns, expected, rtol=1e-12)
    sums = streamed.kernel(f, g, e).transpose_times(jnp.ones(N))
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    assert np.all(np.isfinite(streamed.transport_cost(f, g, e)))


def test_layers_that_differ_in_a_function_alone_are_two_costs():
    # Two layers of one structure; what a callback does is hidden from the program.
    def scaled(factor):
        shape = lambda u: jax.ShapeDtypeStruct(u.shape, u.dtype)
        scale = lambda v: np.asarray(factor * v, v.dtype)
        return lambda u: jax.pure_callback(
            scale, shape(u), u, vmap_method="expand_dims"
        )

    @jax.tree_util.register_pytree_node_class
    class Layer:
        def __init__(self, weight, function):
            self.parts = weight, function

        def __call__(self, u, v):
            weight, function = self.parts
            return weight * jnp.sum(function((u - v) ** 2))

        def tree_flatten(self):
            return self.parts, None

        @classmethod
        def tree_unflatten(cls, _, parts):
            return cls(*parts)

    def settled(factor):
        layer = Layer(jnp.asarray(1.0), scaled(factor))
        return jaxsns.PointCloud(np.ones((2, 2)), np.zeros((3, 2)), layer).settled()

    one, other = settled(2.0), settled(4.0)
    assert one.cost.function != other.cost.function
    np.testing.assert_allclose(other.dense().cost, np.full((2, 3), 8.0))
    np.testing.assert_allclose(one.dense().cost, np.full((2, 3), 4.0))
