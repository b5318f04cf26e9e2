"""Problems, the same for all contenders, and the judge of their plans."""

import numpy as np

from experiments import problems

GAMMAS = (10.0, 1.0, 0.1)  # the largest cost of each problem is 1
BAR = 1e-8  # of the judged error, below which a contender's time counts

CASES = {
    "random costs": lambda: problems.random_assignment(500, 0),
    "points in a plane": lambda: problems.gaussian_points(500, 500, 2, 0),
    "clusters": lambda: problems.clustered(500, 0),
    "exponential and mixture": lambda: problems.exponential_mixture(500),
    "MNIST, W1": lambda: problems.mnist(*problems.mnist_pair(0), 1),
    "MNIST, W2": lambda: problems.mnist(*problems.mnist_pair(0), 2),
}


def problem(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Costs over their largest, and masses of total 1."""
    cost, a, b = map(np.asarray, CASES[case]())
    return cost / cost.max(), a / a.sum(), b / b.sum()


def judged(plan: np.ndarray, cost, a, b, gamma: float) -> dict[str, float]:
    """L1 error of the marginals, objective, and entries above zero of a plan."""
    return {
        "error": float(abs(plan.sum(1) - a).sum() + abs(plan.sum(0) - b).sum()),
        "objective": float((cost * plan).sum() + gamma / 2 * (plan**2).sum()),
        "least": float(plan.min()),
        "entries": int((plan > 0).sum()),
    }
