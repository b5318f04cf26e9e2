"""Numbers are data: changing one compiles nothing again."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns
from jaxsns import NewtonOptions, SinkhornOptions, SNSOptions

COST = jnp.asarray(np.random.default_rng(0).random((6, 7)))


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn", "sns"])
def test_one_trace_for_all_numbers(method):
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(cost, a, b, epsilon, tolerance, max_steps):
        return jaxsns.solve(
            cost, a, b, epsilon=epsilon, tolerance=tolerance, max_steps=max_steps,
            method=method,
        ).value  # fmt: skip

    a, b = jnp.full(6, 1 / 6), jnp.full(7, 1 / 7)
    for epsilon, tolerance, steps in (
        (0.1, 1e-9, 100),
        (0.01, 1e-6, 50),
        (1.0, 0.1, 9),
    ):
        assert np.isfinite(run(COST * epsilon, a, b, epsilon, tolerance, steps))
    assert np.isfinite(run(COST, jnp.flip(a), b, 0.2, 1e-3, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda k: NewtonOptions(
            tolerance=10.0**-k, max_steps=10 * k, patience=float(k)
        ),
        lambda k: SinkhornOptions(tolerance=10.0**-k, max_steps=10 * k),
        lambda k: SNSOptions(tolerance=10.0**-k, max_steps=10 * k, warm_up=k),
    ],
)
def test_eager_calls_and_options_share_one_program(make):
    from jaxsns.solvers import dispatch

    jaxsns.solve(COST, epsilon=0.1, method=make(1))
    before = dispatch.execute._cache_size()
    for k in (2, 3, 4):
        jaxsns.solve(COST, epsilon=0.1 / k, method=make(k))
    assert dispatch.execute._cache_size() == before


def test_a_problem_at_another_epsilon_shares_the_program():
    from jaxsns.solvers import dispatch

    problem = jaxsns.make_problem(COST, epsilon=0.5)
    jaxsns.solve(problem)
    before = dispatch.execute._cache_size()
    for epsilon in (0.1, np.float64(0.2), jnp.asarray(0.3)):
        jaxsns.solve(problem.with_epsilon(epsilon))
    assert dispatch.execute._cache_size() == before


def test_point_cloud_with_pnorm_is_traced_once():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(cloud):
        return jaxsns.solve(cloud, epsilon=0.1).value

    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    for scale in (1.0, 2.0):
        run(jaxsns.PointCloud(scale * x, x, jaxsns.costs.pnorm(3.0)))


def test_a_first_gradient_outside_jit_compiles_few_programs(caplog):
    """Measured: 17. One by one the operations of the derivative made it 149."""
    cost = jnp.asarray(np.random.default_rng(1).random((11, 13)))
    loss = lambda cost: jnp.sum(jaxsns.solve(cost, epsilon=0.1).f ** 2)
    with jax.log_compiles():
        jax.grad(loss)(cost)
    made = [x for x in caplog.messages if x.startswith("Finished XLA compilation")]
    assert 0 < len(made) < 25
