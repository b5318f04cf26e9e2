"""Answers that owe nothing to jaxsns: dense NumPy loops and linear algebra."""

import numpy as np
from scipy.optimize import linprog
from scipy.special import logsumexp


def sinkhorn(cost, a, b, epsilon, sweeps=200_000, tolerance=1e-14):
    """Potentials by plain Sinkhorn, float64, gauge <a,f> = <b,g>.

    A sweep in the log domain, up to a hundred on the kernel that it gives, and again.
    Ends at the tolerance, or where 5,000 sweeps made the error no smaller.
    """
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    g = np.where(b > 0, 0.0, -np.inf)
    least, fallen, made = np.inf, 0, 0
    while made < sweeps and made - fallen < 5000:
        f = epsilon * log_a - epsilon * logsumexp((g[None] - cost) / epsilon, axis=1)
        g = epsilon * log_b - epsilon * logsumexp((f[:, None] - cost) / epsilon, axis=0)
        kernel = plan(cost, f, g, epsilon)
        off = np.abs(kernel.sum(1) - a).sum()
        if off < tolerance:
            break
        if off < 0.99 * least:
            least, fallen = off, made
        scaling, more = _scaling(kernel, a, b, min(100, sweeps - made - 1))
        made += 1 + more
        if made < sweeps:  # what comes back is a sweep in the log domain
            with np.errstate(divide="ignore"):
                g = g + epsilon * np.log(scaling)
    return centre(f, g, a, b)


def _scaling(kernel, a, b, sweeps):
    """Column scaling after so many sweeps, or fewer if the next would overflow."""
    v = np.where(b > 0, 1.0, 0.0)
    for k in range(sweeps):
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = np.where(a > 0, a / (kernel @ v), 0)
            new = np.where(b > 0, b / (u @ kernel), 0)
        real = new[b > 0]
        if not (np.isfinite(u).all() and 1e-30 < real.min() <= real.max() < 1e30):
            return v, k
        v = new
    return v, sweeps


def newton(cost, a, b, epsilon, f, g, steps=60):
    """Potentials by damped Newton steps on the dense dual, where sweeps need for ever.

    From f [n] and g [m]; all masses positive; float64, gauge <a,f> = <b,g>.
    """
    n = len(a)
    for _ in range(steps):
        p = plan(cost, f, g, epsilon)
        missing = np.concatenate([a - p.sum(1), b - p.sum(0)])
        hessian = np.block([[np.diag(p.sum(1)), p], [p.T, np.diag(p.sum(0))]])
        # The gauge is the one direction that is held.
        gauge = np.concatenate([np.ones(n), -np.ones(len(b))]) / (n + len(b))
        step = np.linalg.solve(hessian + np.outer(gauge, gauge), missing)
        step *= min(1, 2 / np.abs(step).max())
        f, g = f + epsilon * step[:n], g + epsilon * step[n:]
    return centre(f, g, a, b)


def centre(f, g, a, b):
    shift = (f[a > 0] @ a[a > 0] - g[b > 0] @ b[b > 0]) / (a.sum() + b.sum())
    return f - shift, g + shift


def plan(cost, f, g, epsilon):
    return np.exp((f[:, None] + g[None] - cost) / epsilon)


def error(cost, a, b, f, g, epsilon):
    """L1 error of both marginals together, from potentials alone."""
    mass = plan(
        np.asarray(cost, float), np.asarray(f, float), np.asarray(g, float), epsilon
    )
    return np.abs(mass.sum(1) - a).sum() + np.abs(mass.sum(0) - b).sum()


def linear_program(cost, a, b):
    """Unregularised optimal cost."""
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones((1, m)))
    columns = np.kron(np.ones((1, n)), np.eye(m))
    out = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.r_[a, b], method="highs"
    )
    assert out.success
    return out.fun


def cost_gradient(mass, a, b, epsilon, row_weights, column_weights, plan_weights):
    """Gradient in the cost of <u, f> + <v, g> + <W, P> by a pseudo-inverse.

    Eigenvalues of the normalised Hessian below 1e-15 are cut; gauge as in `centre`.
    """
    n, m = mass.shape
    rows, columns = mass.sum(1), mass.sum(0)
    scale = 1 / np.sqrt(np.concatenate([rows, columns]))
    hessian = np.block([[np.diag(rows), mass], [mass.T, np.diag(columns)]])
    values, vectors = np.linalg.eigh(scale[:, None] * hessian * scale)
    surplus = (row_weights.sum() - column_weights.sum()) / (a.sum() + b.sum())
    direct = mass * plan_weights / epsilon
    right = np.concatenate(
        [
            row_weights - surplus * a + direct.sum(1),
            column_weights + surplus * b + direct.sum(0),
        ]
    )
    inside = vectors.T @ (scale * right)
    inside = np.where(values > 1e-15, inside / np.where(values > 1e-15, values, 1), 0)
    z = scale * (vectors @ inside)
    gradient = mass * (z[:n, None] + z[None, n:]) - direct
    return gradient, np.sort(values)[1]


def unbalanced(cost, a, b, epsilon, rho_a, rho_b, sweeps=100_000, tolerance=1e-15):
    """Potentials by damped Sinkhorn in the log domain; rho [n], [m] or numbers."""
    tau_a = 1 / (1 + epsilon / np.broadcast_to(rho_a, a.shape))
    tau_b = 1 / (1 + epsilon / np.broadcast_to(rho_b, b.shape))
    with np.errstate(divide="ignore"):
        log_a, log_b = np.log(a), np.log(b)
    f, g = np.zeros(len(a)), np.where(b > 0, 0.0, -np.inf)
    for _ in range(sweeps):
        old = f
        f = epsilon * (log_a - logsumexp((g[None] - cost) / epsilon, axis=1)) * tau_a
        scaled = (f[:, None] - cost) / epsilon
        g = epsilon * (log_b - logsumexp(scaled, axis=0)) * tau_b
        real = a > 0
        if np.abs(f[real] - old[real]).max() < tolerance:
            break
    return f, g


def semi_relaxed_scaling(cost, share, epsilon, gamma, steps=100_000):
    """Plan of the partial layer as published: matrix scaling with a virtual column.

    Zhang et al., "P2OT" (ICLR 2024), Algorithm 1: rows 1 / n, columns share / k with
    a KL penalty gamma, a virtual column of cost zero with exactly 1 - share.
    """
    n, k = cost.shape
    kernel = np.exp(-np.c_[cost, np.zeros(n)] / epsilon)
    rows, columns = np.full(n, 1 / n), np.r_[np.full(k, share / k), 1 - share]
    scaling = np.ones(k + 1)
    for _ in range(steps):
        left = rows / (kernel @ scaling)
        new = columns / (kernel.T @ left)
        new[:-1] **= gamma / (gamma + epsilon)
        done = np.abs(new - scaling).max() < 1e-15 * np.abs(new).max()
        scaling = new
        if done:
            break
    return (left[:, None] * kernel * scaling)[:, :-1]


def barycentre(costs, masses, weights, epsilon, steps=200_000, tolerance=1e-14):
    """Masses and potentials by Bregman projections in the log domain, <b, g_k> = 0."""
    with np.errstate(divide="ignore"):
        log_masses = np.log(masses)
    g = np.zeros((len(masses), costs.shape[2]))
    for _ in range(steps):
        f = log_masses - logsumexp((g[:, None] - costs) / epsilon, axis=2)
        sums = logsumexp(f[:, :, None] - costs / epsilon, axis=1)
        log_b = weights @ sums
        new = epsilon * (log_b - sums)
        moved, g = np.abs(new - g).max(), new
        if moved < tolerance:
            break
    b = np.exp(log_b)
    shift = g @ b / b.sum()
    return b, epsilon * f + shift[:, None], g - shift[:, None]


def support_step(points, masses, y, weights, b, epsilon):
    """One step of Cuturi and Doucet's fixed point for a support, by `sinkhorn`."""
    new = np.zeros_like(y)
    for x, a, w in zip(points, masses, weights, strict=True):
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
        f, g = sinkhorn(cost, a, b, epsilon, sweeps=20_000)
        new += w * (plan(cost, f, g, epsilon).T @ x) / b[:, None]
    return new
