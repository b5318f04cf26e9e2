"""The true errors of a batch, in float64 NumPy from what a contender returned."""

import numpy as np

from experiments.benchmarks.batch_problems import Batch

CHUNK = 4_000_000  # entries of plans held at a time
JUDGED_GRADIENTS = 200  # lanes whose gradient is computed again


def _plans(batch: Batch, f: np.ndarray, g: np.ndarray, lanes: slice) -> np.ndarray:
    cost = batch.cast("float64").cost
    cost = cost[None] if batch.shared else cost[lanes]
    f, g = (np.asarray(x[lanes], np.float64) for x in (f, g))
    epsilon = batch.epsilon[lanes].astype(np.float64)[:, None, None]
    with np.errstate(over="ignore", invalid="ignore"):
        return np.exp((f[:, :, None] + g[:, None, :] - cost) / epsilon)


def worst_error(batch: Batch, f: np.ndarray, g: np.ndarray) -> float:
    """Largest L1 error of both marginals over the mass, of all lanes; inf for NaN."""
    step = max(1, CHUNK // (batch.a.shape[1] * batch.b.shape[1]))
    worst = 0.0
    for start in range(0, batch.lanes, step):
        lanes = slice(start, start + step)
        plan = _plans(batch, f, g, lanes)
        a, b = (x[lanes].astype(np.float64) for x in (batch.a, batch.b))
        rows, columns = np.abs(plan.sum(2) - a), np.abs(plan.sum(1) - b)
        error = (rows.sum(1) + columns.sum(1)) / a.sum(1)
        worst = max(worst, float(np.where(np.isfinite(error), error, np.inf).max()))
    return worst


def gradient_error(
    batch: Batch, f: np.ndarray, g: np.ndarray, gradient: np.ndarray
) -> float:
    """Largest relative error of d <weight, plan> / d cost, of the first lanes.

    With H = [[diag a, P], [P^T, diag b]] and H (u, v) = row and column sums of
    weight * P, the derivative is (u_i + v_j - weight_ij) P_ij / epsilon.
    """
    if not (np.isfinite(f).all() and np.isfinite(g).all()):
        return np.inf
    lanes = slice(0, min(batch.lanes, JUDGED_GRADIENTS))
    n = batch.a.shape[1]
    worst = 0.0
    for plan, eps, got in zip(
        _plans(batch, f, g, lanes), batch.epsilon[lanes], gradient[lanes], strict=True
    ):
        moved = batch.weight.astype(np.float64) * plan
        system = np.block(
            [[np.diag(plan.sum(1)), plan], [plan.T, np.diag(plan.sum(0))]]
        )
        right = np.concatenate([moved.sum(1), moved.sum(0)])
        w = np.linalg.lstsq(system, right, rcond=1e-12)[0]  # H (1, -1) = 0
        true = ((w[:n, None] + w[None, n:]) * plan - moved) / eps
        difference = np.abs(np.asarray(got, np.float64) - true).max()
        worst = max(worst, float(difference / np.abs(true).max()))
    return worst if np.isfinite(worst) else np.inf
