"""Gromov-Wasserstein by definition: sums over all quadruples, loops in NumPy."""

import itertools

import numpy as np
import references


def square(u, v):
    return (u - v) ** 2


def kl(u, v):
    return np.where(u > 0, u * np.log(np.where(u > 0, u, 1) / v), 0) - u + v


def tensor(x, y, loss=square):
    """[n, m, n, m] loss of all pairs of pairs."""
    return loss(x[:, None, :, None], y[None, :, None, :])


def quadratic(x, y, plan, loss=square):
    return np.einsum("ijkl,ij,kl->", tensor(x, y, loss), plan, plan)


def entropy(plan):
    log = np.log(np.where(plan > 0, plan, 1))
    return np.sum(np.where(plan > 0, plan * (log - 1), 0))


def objective(x, y, plan, epsilon, linear=0.0, alpha=1.0, loss=square):
    own = alpha * quadratic(x, y, plan, loss) + (1 - alpha) * np.sum(linear * plan)
    return own + epsilon * entropy(plan)


def cost(x, y, plan, linear=0.0, alpha=1.0, loss=square):
    lin = np.einsum("ijkl,kl->ij", tensor(x, y, loss), plan)
    return 2 * alpha * lin + (1 - alpha) * linear


def gromov(x, y, a, b, epsilon, linear=0.0, alpha=1.0, loss=square, steps=2000):
    """Plan and potentials: linearise, plain Sinkhorn, repeat, from the product."""
    plan = np.outer(a, b)
    for _ in range(steps):
        now = cost(x, y, plan, linear, alpha, loss)
        f, g = references.sinkhorn(now, a, b, epsilon, 5000, tolerance=1e-14)
        new = references.plan(now, f, g, epsilon)
        moved, plan = np.abs(new - plan).sum(), new
        if moved < 1e-13:
            break
    return plan, f, g


def tensor_kl(u, v):
    """KL of the products u x u and v x v, by the definition."""
    u2, v2 = np.outer(u, u), np.outer(v, v)
    log = np.log(np.where(u2 > 0, u2, 1) / np.where(v2 > 0, v2, 1))
    return np.sum(u2 * log) - u2.sum() + v2.sum()


def unbalanced(x, y, a, b, plan, epsilon, rho_a, rho_b, linear, alpha):
    """Objective with penalties; None for a marginal that is not penalised."""
    out = alpha * quadratic(x, y, plan) + (1 - alpha) * np.sum(linear * plan)
    out += epsilon / 2 * tensor_kl(plan.ravel(), np.outer(a, b).ravel())
    if rho_a is not None:
        out += rho_a / 2 * tensor_kl(plan.sum(1), a)
    if rho_b is not None:
        out += rho_b / 2 * tensor_kl(plan.sum(0), b)
    return out


def best_permutation(x, y):
    """Least quadratic cost of all permutations, with equal masses."""
    n = len(x)
    costs = [
        np.mean((x - y[np.ix_(p, p)]) ** 2) for p in itertools.permutations(range(n))
    ]
    return min(costs)
