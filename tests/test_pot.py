"""The family against POT, where it is installed (extra `peers`)."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

ot = pytest.importorskip("ot")


def _problem():
    r = np.random.default_rng(0)
    a, b = r.random(7) + 0.1, r.random(9) + 0.1
    return r.random((7, 9)), a / a.sum(), b / b.sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("rho_a", "rho_b"), [(1.0, 1.0), (0.3, 2.0)])
def test_unbalanced_plans(rho_a, rho_b):
    cost, a, b = _problem()
    b = 1.3 * b
    theirs = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost, 0.05, (rho_a, rho_b), reg_type="entropy",
        numItermax=100_000, stopThr=1e-14,
    )  # fmt: skip
    ours = jaxsns.solve(cost, a, b, epsilon=0.05, rho_a=rho_a, rho_b=rho_b)
    assert ours.converged
    np.testing.assert_allclose(ours.plan(), theirs, atol=1e-8)


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_partial_plans(share):
    # POT's entropic problem has no entropy of what stays; without it they are the same.
    cost, a, b = _problem()
    theirs = ot.partial.partial_wasserstein(a, b, cost, share)
    ours = jaxsns.solve_partial(cost, a, b, epsilon=2e-4, share=jnp.asarray(share))
    assert ours.converged
    np.testing.assert_allclose(ours.plan(), theirs, atol=1e-6)


def test_balanced_plans_and_costs():
    cost, a, b = _problem()
    theirs = ot.sinkhorn(a, b, cost, 0.01, method="sinkhorn_log", stopThr=1e-13,
                         numItermax=100_000)  # fmt: skip
    ours = jaxsns.solve(cost, a, b, epsilon=0.01)
    np.testing.assert_allclose(ours.plan(), theirs, atol=1e-9)
    exact = jaxsns.solve(cost, a, b, epsilon=1e-4)
    np.testing.assert_allclose(exact.transport_cost, ot.emd2(a, b, cost), atol=1e-3)
