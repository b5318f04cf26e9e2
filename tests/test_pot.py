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


def test_group_lasso_plans():
    cost, a, b = _problem()
    labels = np.array([0, 0, 0, 1, 1, 2, 2])
    theirs = ot.da.sinkhorn_l1l2_gl(a, labels, b, cost, 0.2, 0.05)
    penalty = jaxsns.penalties.GroupLasso(labels, 3, 0.05)
    ours = jaxsns.solve_penalised(cost, penalty, a, b, epsilon=0.2, tolerance=1e-10)
    assert ours.converged

    def objective(plan):
        groups = [np.linalg.norm(plan[labels == k], axis=0) for k in range(3)]
        entropy = np.sum(plan * (np.log(plan) - 1))
        return np.sum(cost * plan) + 0.05 * np.sum(groups) + 0.2 * entropy

    # POT's line search finds no step after the second, 2e-4 above the minimum.
    ours = np.asarray(ours.plan())
    assert objective(ours) < objective(theirs) < objective(ours) + 1e-3
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
