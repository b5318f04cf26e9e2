"""Newton directions of plans in which many rows nearly stand alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.hessian import schur

N = 200


def alone(d: int) -> tuple[schur.SchurSystem, np.ndarray, np.ndarray]:
    """System, dense matrix and right side of a plan between points in d dimensions.

    After some Sinkhorn sweeps of a loop; the residual is what they left.
    """
    x, y = np.random.default_rng(3).normal(size=(2, N, d))
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    k = np.exp(1200 * (cost.min(1)[:, None] - cost) / cost.max())
    k /= k.max(0)
    u = np.ones(N)
    for _ in range(300):
        v = 1 / N / (k.T @ u)
        u = 1 / N / (k @ v)
    v = 1 / N / (k.T @ u)
    plan = u[:, None] * k * v[None, :]
    rows, columns = plan.sum(1), plan.sum(0)
    ones = jnp.ones(N)
    sums = jnp.asarray(rows), jnp.asarray(columns)
    shift = jnp.asarray(1e-14)
    system = schur.make_system(DenseKernel(jnp.asarray(plan)), ones, ones, *sums, shift)
    q = plan / np.sqrt(rows)[:, None] / np.sqrt(columns)
    w = np.sqrt(rows / rows.sum())
    rhs = (1 / N - rows) / np.sqrt(rows)
    return system, (1 + 1e-14) * np.eye(N) - q @ q.T, rhs - w * (w @ rhs)


@pytest.mark.parametrize(("d", "most"), [(10, 70), (100, 30)])
def test_few_products_find_a_direction(d, most):
    """Against a dense solve, in the norm of A, which slow modes count in.

    Measured 59 and 63 products in 10-D, 24 and 25 in 100-D, and 1e-4 to 5e-4 of it.
    With w w^T in the diagonal, 78 and 94, 37 and 45, and 3e-3 to 4e-3.
    """
    system, matrix, rhs = alone(d)
    w = np.asarray(system.pin)
    assert np.sum(np.diag(matrix) < 1e-4) >= N // 20
    wanted = np.linalg.solve(matrix + np.outer(w, w), rhs)
    end = schur.solve_cg(system, jnp.asarray(rhs), 1e-3, 5000)
    assert bool(end.converged)
    assert int(end.steps) <= most
    left = np.asarray(end.x) - wanted
    assert left @ matrix @ left <= 1e-6 * (wanted @ matrix @ wanted)
    assert np.linalg.norm(matrix @ left) <= 2e-3 * np.linalg.norm(rhs)
