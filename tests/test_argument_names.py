"""Odd arguments of the functions around `solve`: an error that names the argument."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

N = 6
COST = np.random.default_rng(0).random((N, N))
COST = COST + COST.T
PAIR = np.stack([np.eye(2)] * 2)
EQUAL = np.full((2, N), 1 / N)
POINTS = np.random.default_rng(1).normal(size=(N, 2))

BIG = [
    lambda k: jaxsns.solve_quadratic(COST, COST, epsilon=0.5, max_steps=k),
    lambda k: jaxsns.match_graphs(COST, COST, epsilon=0.5, max_steps=k),
    lambda k: jaxsns.gromov_wasserstein_divergence(
        COST, COST, epsilon=0.5, max_steps=k
    ),
    lambda k: jaxsns.gaussian.barycentre(PAIR, max_steps=k),
    lambda k: jaxsns.space_barycentre(
        [COST] * 2, list(EQUAL), COST, epsilon=0.5, max_steps=k
    ),
    lambda k: jaxsns.debiased_barycentre(COST, EQUAL, epsilon=0.5, steps=k),
    lambda k: jaxsns.fixed_support_barycentre(COST, EQUAL, epsilon=0.5, max_steps=k),
    lambda k: jaxsns.solve_penalised(COST, jnp.sum, epsilon=0.5, max_steps=k),
    lambda k: jaxsns.unrolled_sinkhorn(jaxsns.make_problem(COST, epsilon=0.1), k),
    lambda k: jaxsns.solve(COST, epsilon=0.1, max_steps=k),
]


@pytest.mark.parametrize("call", BIG)
@pytest.mark.parametrize("number", [2**31, "3", 2.5, 0])
def test_limits_of_steps(call, number):
    with pytest.raises((TypeError, ValueError), match="^(max_)?steps must be "):
        call(number)


KEY = jax.random.key(0)
CASES = {
    "tolerance must be a number": [
        lambda: jaxsns.solve_quadratic(COST, COST, epsilon=0.5, tolerance="x"),
        lambda: jaxsns.gaussian.barycentre(PAIR, tolerance="x"),
    ],
    "inner_tolerance must be a number": [
        lambda: jaxsns.solve_quadratic(COST, COST, epsilon=0.5, inner_tolerance="x"),
    ],
    "anneal must be an array of real numbers": [
        lambda: jaxsns.solve_quadratic(COST, COST, epsilon=0.5, anneal="x"),
    ],
    "share must be": [
        lambda: jaxsns.solve_partial(COST, share="x"),
        lambda: jaxsns.solve_partial(COST, share=None),
    ],
    "tolerance must be an array of real numbers": [
        lambda: jaxsns.diagnose(COST, tolerance="x"),
    ],
    "epsilon must be an array of real numbers": [
        lambda: jaxsns.diagnose(COST, epsilon="x"),
    ],
    "subject must be an array of real numbers": [lambda: jaxsns.diagnose("x")],
    "f of init must be an array of real numbers": [
        lambda: jaxsns.solve(COST, epsilon=0.1, init=("a", "b")),
    ],
    "constraints must be a list": [
        lambda: jaxsns.solve_constrained(COST, None, epsilon=0.1),
    ],
    "problem must be a Problem": [lambda: jaxsns.unrolled_sinkhorn(COST, 2)],
    "key must be one key of jax.random": [
        lambda: jaxsns.solve_low_rank(COST, rank=2, epsilon=0.1, key=3),
        lambda: jaxsns.sliced_wasserstein(POINTS, POINTS, key=3),
        lambda: jaxsns.solve_quadratic(COST, COST, epsilon=1, init="random", key="a"),
    ],
    "weights must have the shape of mask": [
        lambda: jaxsns.ragged.masses([True, False], [1.0, 2.0, 3.0]),
    ],
    "length must be a Python integer": [
        lambda: jaxsns.ragged.pad([POINTS], length="9"),
        lambda: jaxsns.ragged.pad([POINTS], length=9.5),
    ],
    "arrays must be a list": [lambda: jaxsns.ragged.pad(None)],
    "lanes must be a Python integer": [
        lambda: jaxsns.ragged.bucketed([POINTS], lanes="2"),
        lambda: jaxsns.ragged.bucketed([POINTS], lanes=2.5),
    ],
    "an entry of sizes must be a Python integer": [
        lambda: jaxsns.ragged.bucketed([POINTS], sizes="ab"),
    ],
    "scale_cost is no option": [
        lambda: jaxsns.transport_loss(POINTS, POINTS, scale_cost="mean"),
        lambda: jaxsns.sinkhorn_divergence(POINTS, POINTS, scale_cost="mean"),
        lambda: jaxsns.monge_gap(POINTS, POINTS, scale_cost="mean"),
    ],
    "early_stop must be True or False": [
        lambda: jaxsns.solve(COST, epsilon=0.1, early_stop="no"),
    ],
    "continuation must be True or False": [
        lambda: jaxsns.solve(COST, epsilon=0.1, continuation="no"),
    ],
    "epsilon must hold real numbers; got dtype bool$": [
        lambda: jaxsns.solve(COST, epsilon=True),
    ],
    "^rho must be an array of real numbers": [
        lambda: jaxsns.sinkhorn_divergence(POINTS, POINTS, rho="3"),
        lambda: jaxsns.transport_loss(POINTS, POINTS, rho="q"),
    ],
    r"f of init must have shape \[6\]": [
        lambda: jaxsns.solve_partial(COST, share=0.5, init=(np.zeros(5), np.zeros(6))),
    ],
}


@pytest.mark.parametrize(
    ("words", "call"), [(k, c) for k, cs in CASES.items() for c in cs]
)
def test_what_is_wrong_is_named(words, call):
    with pytest.raises((TypeError, ValueError), match=words):
        call()


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cost_may_be_a_plain_number(streamed):
    cloud = jaxsns.PointCloud(POINTS, POINTS, lambda u, v: 3.0, streamed=streamed)
    found = jaxsns.solve(cloud, epsilon=0.5)
    np.testing.assert_allclose(found.plan(), np.full((N, N), 1 / N**2), rtol=1e-10)
    np.testing.assert_allclose(found.transport_cost, 3.0, rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_masses_of_a_coarse_softmax_are_taken_everywhere(dtype):
    random = np.random.default_rng(3)
    draw = lambda k: jax.nn.softmax(jnp.asarray(3 * random.normal(size=k), dtype))
    a, b = draw(40), draw(30)
    x = random.normal(size=(40, 2)).astype(np.float32)
    y = random.normal(size=(30, 2)).astype(np.float32)
    wide = [np.asarray(v, np.float64) for v in (a, b)]
    wide[1] *= wide[0].sum() / wide[1].sum()
    lines = random.normal(size=(5, 2)).astype(np.float32)
    sliced = jax.jit(jaxsns.sliced_wasserstein)(x, y, a, b, directions=lines)
    eager = jaxsns.sliced_wasserstein(x, y, a, b, directions=lines)
    np.testing.assert_allclose(sliced, eager, rtol=1e-5)
    units = lines / np.linalg.norm(lines, axis=1, keepdims=True)
    wanted = []
    for u in units.astype(np.float64):
        # One dimension: quantile functions, on the union of both sets of steps.
        i, j = np.argsort(x @ u), np.argsort(y @ u)
        ends = np.cumsum(wide[0][i]), np.cumsum(wide[1][j])
        at = np.sort(np.concatenate(ends))
        before = np.concatenate([[0], at[:-1]])
        middle = (at + before) / 2
        p = (x @ u)[i][np.minimum(np.searchsorted(ends[0], middle), 39)]
        q = (y @ u)[j][np.minimum(np.searchsorted(ends[1], middle), 29)]
        wanted.append(np.sum((at - before) * (p - q) ** 2))
    np.testing.assert_allclose(eager, np.mean(wanted), rtol=1e-5)
    assert np.isfinite(jaxsns.sliced_map(x, y, a, b, directions=lines)).all()
    mixture = jaxsns.gaussian.Mixture
    eyes = lambda k: np.tile(np.eye(2, dtype=np.float32), (k, 1, 1))
    found = jaxsns.gaussian.mixture_transport(
        mixture(a, x, eyes(40)), mixture(b, y, eyes(30)), epsilon=1.0
    )
    assert found.converged


@pytest.mark.parametrize("rho_b", [None, 0.7])
def test_a_partial_problem_starts_from_its_own_potentials(rho_b):
    solved = lambda **options: jaxsns.solve_partial(
        COST, share=0.6, epsilon=0.05, rho_b=rho_b, **options
    )
    cold = solved()
    warm = solved(init=(cold.f, cold.g))
    assert cold.converged
    assert warm.converged
    assert warm.counts.newton_steps + warm.counts.sweeps <= 1
    np.testing.assert_allclose(warm.plan(), cold.plan(), atol=1e-9)


def test_clouds_apart_are_told_one_thing():
    far = jaxsns.PointCloud(
        POINTS.astype(np.float32), POINTS[::-1].astype(np.float32) + 300
    )
    names = jaxsns.diagnose(jaxsns.solve(far)).names
    assert names == ("epsilon too large",)
    assert "costs far from zero" not in jaxsns.diagnose(far).names
