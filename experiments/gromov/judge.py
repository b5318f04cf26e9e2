"""What a plan is worth, by NumPy in float64, whoever found it."""

import numpy as np


def projected(plan: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Nearby plan with exactly the marginals (Altschuler, Weed, Rigollet 2017)."""
    plan = plan * np.minimum(a / np.maximum(plan.sum(1), 1e-300), 1)[:, None]
    plan = plan * np.minimum(b / np.maximum(plan.sum(0), 1e-300), 1)[None]
    rows, columns = a - plan.sum(1), b - plan.sum(0)
    missing = rows.sum()
    return plan + np.outer(rows, columns) / missing if missing > 1e-300 else plan


def quadratic(x: np.ndarray, y: np.ndarray, plan: np.ndarray) -> float:
    """Square loss of all pairs of pairs."""
    rows, columns = plan.sum(1), plan.sum(0)
    constant = rows @ (x**2 @ rows) + columns @ (y**2 @ columns)
    return float(constant - 2 * np.sum((x @ plan @ y) * plan))


def quadratic_of_points(x: np.ndarray, y: np.ndarray, left, right) -> float:
    """The same for squared distances of points and a plan `left @ right.T`."""
    x, y, left, right = (np.asarray(v, np.float64) for v in (x, y, left, right))
    rows, columns = left @ right.sum(0), right @ left.sum(0)
    x, y = x - rows @ x / rows.sum(), y - columns @ y / columns.sum()

    def factors(points):
        squares = np.sum(points**2, axis=1, keepdims=True)
        one = np.ones_like(squares)
        u = np.concatenate([squares, one, -2 * points], axis=1)
        return u, np.concatenate([one, squares, points], axis=1)

    def of_squares(points, masses):
        u, v = factors(points)
        return masses @ np.sum((u @ ((v.T * masses) @ v)) * u, axis=1)

    (a, b), (c, d) = factors(x), factors(y)
    cross = np.sum(((b.T @ left) @ (right.T @ c)) * ((a.T @ left) @ (right.T @ d)))
    return float(of_squares(x, rows) + of_squares(y, columns) - 2 * cross)


def entropy(plan: np.ndarray) -> float:
    """Sum of P (log P - 1)."""
    return float(np.sum(plan * (np.log(np.maximum(plan, 1e-300)) - 1)))


def judge(case: dict, plan: np.ndarray) -> dict[str, float]:
    """Marginal error of a plan; loss and objective of it, projected."""
    n, m = plan.shape
    a, b = np.full(n, 1 / n), np.full(m, 1 / m)
    error = np.abs(plan.sum(1) - a).sum() + np.abs(plan.sum(0) - b).sum()
    plan = projected(np.maximum(plan, 0), a, b)
    alpha = case.get("alpha", 1.0)
    loss = alpha * quadratic(case["x"], case["y"], plan)
    if "linear" in case:
        loss += (1 - alpha) * float(np.sum(case["linear"] * plan))
    objective = loss + case["epsilon"] * entropy(plan)
    return {"loss": loss, "objective": objective, "marginal_error": float(error)}


def foscttm(case: dict, plan: np.ndarray) -> float:
    """Mean share of points that are nearer than the true match, after projection."""
    moved = (plan / plan.sum(1, keepdims=True)) @ case["points_y"]
    gaps = np.sum((moved[:, None] - case["points_y"][None]) ** 2, axis=-1)
    own = np.diag(gaps)
    rows = np.mean(gaps < own[:, None], axis=1)
    columns = np.mean(gaps < own[None], axis=0)
    return float(np.mean((rows + columns) / 2))


def unbalanced(case: dict, plan: np.ndarray) -> float:
    """Objective with penalties, as in `jaxsns.quadratic`."""
    a, b, mass = case["a"], case["b"], plan.sum()

    def tensor(u, v):
        log = np.sum(u * np.log(np.maximum(u, 1e-300) / v))
        return mass * log + (v.sum() ** 2 - mass**2) / 2

    out = case["alpha"] * quadratic(case["x"], case["y"], plan)
    out += (1 - case["alpha"]) * np.sum(case["linear"] * plan)
    out += case["rho"] * (tensor(plan.sum(1), a) + tensor(plan.sum(0), b))
    reference = np.outer(a, b)
    return float(out + case["epsilon"] * tensor(plan.ravel(), reference.ravel()))
