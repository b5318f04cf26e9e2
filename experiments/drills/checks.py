"""The judge: whether what came back is true. NumPy in a wider dtype, nothing of ours.

Rounding is derived. With h half the distance from 1 to the next number, the plan of
given potentials is exp(z), z = (f + g - C) / epsilon, and a program that forms it
knows z up to

    delta = h (|f| + |g| + |f + g| + 4 |f + g - C|) / epsilon + 8 h:

one rounding of f and g each where they are put together, which products with a kernel
do not see (what `solve` returns is not rounded after its verdict), one of each sum, two
of the quotient (by a reciprocal), 1 for 1 / epsilon itself, and two units in the last
place of exp. Sums of k numbers are known up to k h of the sum of absolute values.
"""

from typing import NamedTuple

import numpy as np

from experiments.drills.problems import Lanes, Setting, wide
from experiments.drills.solving import Answers
from jaxsns import Status

TOLERANCES = {"float32": 2e-5, "float64": 1e-10}
# An iteration sees the error on its kernel, known to rounding, of potentials that are
# rounded once more when they are put together.
EXPLAINED = 20.0  # roundings: a default tolerance is no larger
KERNEL = 2


class Verdict(NamedTuple):
    """Of each lane."""

    error: np.ndarray  # relative L1 error of both marginals, as it is
    rounding: np.ndarray  # by how much a program may be wrong about it
    dual: np.ndarray  # the dual value, as it is
    upper: np.ndarray  # the primal value of a feasible plan
    off: np.ndarray  # true error minus the reported one, over rounding
    early: np.ndarray  # bool: gave up at an error that rounding does not explain
    violations: list[list[str]]


def plans(setting: Setting, lanes: Lanes, answers: Answers):
    """([L, n, m] plan, [L, n, m] delta), wide; and potentials without -inf."""
    big = wide(setting.dtype)
    h = big(np.finfo(setting.dtype).eps) / 2
    real_a, real_b = lanes.a > 0, lanes.b > 0
    f = np.where(real_a, answers.f, 0).astype(big)[:, :, None]
    g = np.where(real_b, answers.g, 0).astype(big)[:, None]
    epsilon = lanes.epsilon.astype(big)[:, None, None]
    real = real_a[:, :, None] & real_b[:, None] & np.isfinite(lanes.cost)
    cost = np.where(real, lanes.cost, 0).astype(big)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        z = f + g - cost
        plan = np.where(real, np.exp(z / epsilon), 0)
        size = np.abs(f) + np.abs(g) + np.abs(f + g) + 4 * np.abs(z)
        delta = h * size / epsilon + 8 * h
        delta = delta + _of_geometry(setting, lanes, f, g, h) / epsilon
    return plan, np.where(real, delta, 0), f[:, :, 0], g[:, 0]


def _of_geometry(setting: Setting, lanes: Lanes, f, g, h):
    """What the forming of costs adds to rounding, in units of cost."""
    if lanes.x is None:
        return 0 * h
    big = wide(setting.dtype)
    size = [np.abs(v.astype(big)).max(axis=(1, 2)) for v in (lanes.x, lanes.y)]
    far = 2 * (size[0] + size[1]) ** 2  # the largest squared distance in two axes
    top = np.abs(f).max(axis=(1, 2)) + np.abs(g).max(axis=(1, 2))
    # A product of matrices of d + 2 terms, each at most four such numbers, with the
    # potential folded in; a grid adds the same along each of two axes.
    return (h * 8 * (4 * far + top))[:, None, None]


def _wanted(mass, rho, potential, h):
    """Mass asked for, by how much it may be wrong, and the dual's term."""
    if rho is None:
        return mass, 0 * mass, np.sum(mass * potential, axis=1)
    rho = rho[:, None].astype(mass.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        soft = mass * np.exp(-potential / rho)
        term = np.where(
            np.isinf(rho), mass * potential, -rho * mass * np.expm1(-potential / rho)
        )
        slack = soft * h * (4 * np.abs(potential) / rho + 8)
    return soft, slack, np.sum(np.where(mass > 0, term, 0), axis=1)


def _penalty(mass, rho, sums):
    if rho is None:
        return np.zeros(len(mass), mass.dtype)
    rho = rho[:, None].astype(mass.dtype)
    some = (mass > 0) & (sums > 0)
    log = np.log(np.where(some, sums, 1) / np.where(some, mass, 1))
    divergence = np.where(mass > 0, sums * log - sums + mass, 0)
    return np.sum(np.where(np.isinf(rho), 0, rho * divergence), axis=1)


def _divided(x, y):
    return np.where(y > 0, x / np.where(y > 0, y, 1), 0)


def rounded(plan, a, b):
    """Feasible plan near a plan: Altschuler, Weed and Rigollet (2017), Algorithm 2."""
    plan = plan * np.minimum(_divided(a, plan.sum(2)), 1)[:, :, None]
    plan = plan * np.minimum(_divided(b, plan.sum(1)), 1)[:, None]
    rows, columns = a - plan.sum(2), b - plan.sum(1)
    rows, columns = np.maximum(rows, 0), np.maximum(columns, 0)
    missing = np.maximum(rows.sum(1), columns.sum(1))
    share = columns / np.where(missing > 0, missing, 1)[:, None]
    return plan + rows[:, :, None] * share[:, None]


def primal(plan, cost, epsilon):
    """<C, P> + epsilon sum P (log P - 1); infinite if a forbidden pair is used."""
    safe = np.where(plan > 0, plan, 1)
    paid = np.where(plan > 0, plan * (np.where(plan > 0, cost, 0)), 0)
    entropy = np.where(plan > 0, plan * (np.log(safe) - 1), 0)
    return paid.sum((1, 2)) + epsilon * entropy.sum((1, 2))


def judge(setting: Setting, lanes: Lanes, answers: Answers) -> Verdict:
    """Judge all lanes of a batch; a violation is a word with its numbers."""
    big = wide(setting.dtype)
    h = big(np.finfo(setting.dtype).eps) / 2
    n, m = setting.shape
    plan, delta, f, g = plans(setting, lanes, answers)
    a, b, epsilon = (v.astype(big) for v in (lanes.a, lanes.b, lanes.epsilon))
    with np.errstate(all="ignore"):
        want_a, slack_a, term_a = _wanted(a, lanes.rho_a, f, h)
        want_b, slack_b, term_b = _wanted(b, lanes.rho_b, g, h)
        rows, columns, mass = plan.sum(2), plan.sum(1), plan.sum((1, 2))
        total = np.minimum(want_a.sum(1), want_b.sum(1))
        error = np.abs(rows - want_a).sum(1) + np.abs(columns - want_b).sum(1)
        blur = (plan * np.expm1(np.minimum(delta, 600))).sum((1, 2))
        rounding = 2 * blur + slack_a.sum(1) + slack_b.sum(1)
        rounding = rounding + (n + m) * h * (2 * mass + total + want_b.sum(1) + error)
        error, rounding = error / total, rounding / total
        dual = term_a + term_b - epsilon * mass
        sizes = (np.abs(a * f) + slack_a * np.abs(f)).sum(1)
        sizes = sizes + (np.abs(b * g) + slack_b * np.abs(g)).sum(1)
        if lanes.rho_a is not None:
            # f (1 - exp(-f / rho)) / (f / rho) is known relatively, not a f.
            for potential, wanted in ((f, want_a), (g, want_b)):
                sizes = sizes + 4 * np.abs(potential * wanted).sum(1)
        blur = epsilon * (blur + (n + m) * h * mass) + (n + m + 8) * h * sizes
        upper, lower = _bounds(setting, lanes, plan, dual, f, g)
    words = [
        _violations(setting, lanes, answers, k, error, rounding, dual, blur, upper,
                    lower, (f, g))
        for k in range(len(error))
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        off = ((error - answers.error) / rounding).astype(float)
        early = answers.error > answers.tolerance + KERNEL * rounding
    early &= np.isin(answers.status, (Status.STALLED, Status.MAX_STEPS))
    early &= np.asarray(lanes.kinds) != "infeasible"
    return Verdict(error, rounding, dual, upper, off, early, words)


def _bounds(setting: Setting, lanes: Lanes, plan, dual, f, g):
    """Upper and lower bound of the same optimum, each lane."""
    big = wide(setting.dtype)
    a, b, epsilon = (v.astype(big) for v in (lanes.a, lanes.b, lanes.epsilon))
    cost = np.where(np.isfinite(lanes.cost), lanes.cost, np.inf).astype(big)
    if lanes.rho_a is None:
        # Totals agree to rounding only: the problem with b scaled has a plan.
        even = b * (a.sum(1) / b.sum(1))[:, None]
        lower = dual + ((even - b) * np.where(b > 0, g, 0)).sum(1)
        return primal(rounded(plan, a, even), cost, epsilon), lower
    for mass, rho, axis in ((a, lanes.rho_a, 2), (b, lanes.rho_b, 1)):
        exact = np.expand_dims(_divided(mass, plan.sum(axis)), axis)
        hard = np.isinf(rho)[:, None, None]
        plan = np.where(hard, plan * exact, plan)
    upper = primal(plan, cost, epsilon) + _penalty(a, lanes.rho_a, plan.sum(2))
    return upper + _penalty(b, lanes.rho_b, plan.sum(1)), dual


def allowed(setting: Setting, kind: str) -> set[Status]:
    """Statuses that are a right answer to a problem of this kind."""
    good = {Status.CONVERGED, Status.STALLED}
    slow = setting.method in ("sinkhorn", "symmetric") or setting.penalised
    if slow or kind == "forbidden":
        good |= {Status.MAX_STEPS}
    if kind == "infeasible":
        good = {Status.INFEASIBLE, Status.STALLED, Status.MAX_STEPS}
    return good


def _violations(
    setting, lanes, answers, k, error, rounding, dual, blur, upper, lower, potentials
):
    """Say what of lane k is not as promised; empty if all is well."""
    out = []
    status, reported = Status(int(answers.status[k])), float(answers.error[k])
    # At the limit of steps, and of the dtype: STALLED says it better, both are true.
    explained = TOLERANCES[setting.dtype] + KERNEL * rounding[k]
    exhausted = status == Status.MAX_STEPS and reported <= explained
    if status not in allowed(setting, lanes.kinds[k]) and not exhausted:
        out.append(f"status {status.name}")
    if status in (Status.NONFINITE, Status.INVALID_INPUT, Status.MASS_MISMATCH):
        return out
    for name, given, mass in (("f", answers.f, lanes.a), ("g", answers.g, lanes.b)):
        if not np.isfinite(given[k][mass[k] > 0]).all():
            out.append(f"{name} is not finite where there is mass")
        if not (given[k][mass[k] == 0] == -np.inf).all():
            out.append(f"{name} is not -inf where there is no mass")
    if out and status == Status.INFEASIBLE:
        return out
    for name in ("error", "value", "primal"):
        if not np.isfinite(getattr(answers, name)[k]):
            out.append(f"{name} is {getattr(answers, name)[k]}")
    off = float((error[k] - reported) / rounding[k])
    if not off <= 1:
        out.append(
            f"error {float(error[k]):.3e} but {reported:.3e} reported: {off:.2f}"
        )
    if status == Status.CONVERGED:
        limit = answers.tolerance[k]
        # Without a tolerance it is what rounding explains, if that is more.
        if not limit <= TOLERANCES[setting.dtype] + EXPLAINED * rounding[k]:
            out.append(f"a tolerance of {limit:.3e} for itself")
        if not reported <= limit * (1 + 1e-6):
            out.append(f"converged at {reported:.3e}")
        if not error[k] <= limit + rounding[k]:
            out.append(f"converged at a true error of {float(error[k]):.3e}")
        value = answers.value[k].astype(error.dtype)
        if not abs(value - dual[k]) <= blur[k]:
            out.append(f"value {value:.9g} is not the dual's {dual[k]:.9g}")
        between = dual[k] - blur[k] <= value <= upper[k] + blur[k] + dual[k] - lower[k]
        if not between or not lower[k] <= upper[k] + blur[k]:
            out.append(f"value {value:.9g} not in [{dual[k]:.9g}, {upper[k]:.9g}]")
    if lanes.rho_a is None and status == Status.CONVERGED:
        f, g = potentials
        a, b = lanes.a[k].astype(f.dtype), lanes.b[k].astype(f.dtype)
        h = np.finfo(setting.dtype).eps / 2
        tilt = abs((a * f[k]).sum() - (b * g[k]).sum())
        size = (np.abs(a * f[k]).sum() + np.abs(b * g[k]).sum()) * h
        if tilt > (sum(setting.shape) + 8) * size:
            out.append(f"gauge off by {float(tilt / size):.1f} roundings")
    return out
