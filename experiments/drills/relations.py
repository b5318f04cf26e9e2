"""The same problem told otherwise: what its answer has to be, and how near.

Transposed, atoms in another order, costs (exactly) scaled by a power of two or
shifted by a constant, masses scaled. Told so, two answers are compared in the frame
of the first. How far two sets of potentials with marginal residuals r may be apart is
derived, to first order, from the Hessian of the dual: each is off the solution by

    d = epsilon H^+ r,    and its plan by at most sqrt(T r . H^+ r) in L1,

T the mass. Residuals are the true ones, rounding of the potentials included.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from experiments.drills import checks
from experiments.drills.problems import Lanes, Setting, wide
from experiments.drills.solving import Answers
from jaxsns import Status

NAMES = ("transposed", "permuted", "scaled", "shifted", "more mass")
SMALL = 0.05  # of an exponent: changes above it are not of first order
FIXED = 1e-6  # least eigenvalue, of at most 2, with which potentials are fixed
SLACK = 1.2  # for what is of second order


class Told(NamedTuple):
    """A pair of tellings, and how answers of the second are read in the first."""

    setting: Setting  # of the second
    first: Lanes
    second: Lanes
    back: Callable  # (f, g) wide -> (f, g) wide
    exact: bool = False  # nothing is rounded differently: answers agree bit for bit


def tell(name: str, setting: Setting, lanes: Lanes, seed: int) -> Told:
    """Tell a batch of stored costs otherwise."""
    r = np.random.default_rng([seed, 7])
    count, n, m = lanes.cost.shape
    if name == "transposed":
        other = lanes._replace(
            cost=np.ascontiguousarray(lanes.cost.swapaxes(1, 2)),
            a=lanes.b, b=lanes.a, rho_a=lanes.rho_b, rho_b=lanes.rho_a,
        )  # fmt: skip
        return Told(setting._replace(shape=(m, n)), lanes, other, lambda f, g: (g, f))
    if name == "permuted":
        rows = np.stack([r.permutation(n) for _ in range(count)])
        columns = np.stack([r.permutation(m) for _ in range(count)])
        cost = np.take_along_axis(lanes.cost, rows[:, :, None], 1)
        other = lanes._replace(
            cost=np.take_along_axis(cost, columns[:, None], 2),
            a=np.take_along_axis(lanes.a, rows, 1),
            b=np.take_along_axis(lanes.b, columns, 1),
        )

        def back(f, g):
            f2, g2 = np.empty_like(f), np.empty_like(g)
            np.put_along_axis(f2, rows, f, 1)
            np.put_along_axis(g2, columns, g, 1)
            return f2, g2

        return Told(setting, lanes, other, back)
    # Downwards: the largest costs there are stay within what is drilled.
    powers = 2.0 ** r.integers(-16, 0, count)
    dtype = np.dtype(setting.dtype)
    if name == "scaled":
        by = powers.astype(dtype)
        other = lanes._replace(
            cost=lanes.cost * by[:, None, None], epsilon=lanes.epsilon * by
        )

        def unscaled(f, g):
            return f / by[:, None], g / by[:, None]

        return Told(setting, lanes, other, unscaled, exact=True)
    if name == "more mass":
        by = powers.astype(dtype)[:, None]
        other = lanes._replace(a=lanes.a * by, b=lanes.b * by)
        big = wide(dtype)
        half = lanes.epsilon.astype(big)[:, None] * np.log(by.astype(big)) / 2
        return Told(setting, lanes, other, lambda f, g: (f - half, g - half))
    # Costs of eleven bits, so that a sum with a constant of as many is exact.
    finite = np.isfinite(lanes.cost)
    largest = np.abs(np.where(finite, lanes.cost, 0)).max((1, 2)).astype(float)
    bit = 2.0 ** (np.floor(np.log2(np.where(largest > 0, largest, 1))) - 10)
    bit = bit.astype(dtype)[:, None, None]
    coarse = np.where(finite, np.round(np.where(finite, lanes.cost, 0) / bit) * bit,
                      lanes.cost)  # fmt: skip
    by = bit * r.integers(-2048, 2049, count).astype(dtype)[:, None, None]
    first = lanes._replace(cost=coarse)
    half = by[:, :, 0].astype(wide(dtype)) / 2
    second = lanes._replace(cost=coarse + by)
    return Told(setting, first, second, lambda f, g: (f - half, g - half))


def _allowance(plan, a, b, epsilon):
    """([n + m] move of the potentials, L1 move of the plan), modulo the gauge.

    The former is infinite where the plan has nearly split: parts of it then have
    constants of their own, which no residual fixes.
    """
    rows, columns = plan.sum(1), plan.sum(0)
    residual = np.r_[a - rows, b - columns].astype(float)
    sums = np.r_[rows, columns].astype(float)
    root = 1 / np.sqrt(np.where(sums > 0, sums, np.inf))
    n = len(a)
    normal = np.diag((sums > 0).astype(float))
    corner = root[:n, None] * plan.astype(float) * root[None, n:]
    normal[:n, n:], normal[n:, :n] = corner, corner.T
    values, vectors = np.linalg.eigh(normal)
    gauge = np.r_[np.sqrt(sums[:n]), -np.sqrt(sums[n:])]
    gauge /= np.linalg.norm(gauge)
    right = root * residual
    right -= gauge * (gauge @ right)
    parts = vectors.T @ right
    inverse = 1 / np.maximum(values, 1e-15)
    # Null vectors: the gauge, and atoms that have no mass.
    inverse[np.abs(parts) <= 1e-12 * np.linalg.norm(right)] = 0
    move = float(epsilon) * root * (vectors @ (inverse * parts))
    if np.sort(values)[1 + int((sums == 0).sum())] < FIXED:
        move = np.full_like(move, np.inf)
    return np.abs(move), np.sqrt(float(rows.sum()) * (parts**2) @ inverse)


def compare(setting: Setting, told: Told, first: Answers, second: Answers):
    """([lanes] violations, [lanes] bool of those compared to the bound)."""
    big = wide(setting.dtype)
    h = np.finfo(setting.dtype).eps / 2
    with np.errstate(all="ignore"):
        f2, g2 = told.back(second.f.astype(big), second.g.astype(big))
    moved = first._replace(f=f2, g=g2)
    one, delta, f1, g1 = checks.plans(setting, told.first, first)
    # Rounding of the second in its own frame: a shift makes it larger.
    own, own_delta, _, _ = checks.plans(told.setting, told.second, second)
    two, _, f2, g2 = checks.plans(setting, told.first, moved)
    out, judged = [], np.zeros(len(one), bool)
    for k in range(len(one)):
        words = []
        if told.exact and not all(
            np.array_equal(x[k], y[k], equal_nan=True)
            for x, y in zip(moved[:4], first[:4], strict=True)
        ):
            words.append("not the same bit for bit")
        ends = [Status(int(x.status[k])) for x in (first, second)]
        if ends != [Status.CONVERGED] * 2:
            if Status.CONVERGED in ends:
                # One just missed the tolerance: by no more than rounding.
                blur = max(
                    2 * (p[k] * np.expm1(np.minimum(d[k], 600))).sum() / p[k].sum()
                    for p, d in ((one, delta), (own, own_delta))
                )
                worst = max(first.error[k], second.error[k])
                limit = checks.TOLERANCES[setting.dtype]
                if told.first.kinds[k] != "forbidden" and not worst <= limit + 2 * (
                    blur + sum(setting.shape) * 4 * h
                ):
                    words.append(f"{ends[0].name} and {ends[1].name}, {worst:.1e}")
            out.append(words)
            continue
        a, b = (v[k].astype(big) for v in (told.first.a, told.first.b))
        epsilon = told.first.epsilon[k]
        moves = [_allowance(p[k], a, b, epsilon) for p in (one, two)]
        near = moves[0][0].max() + moves[1][0].max()
        apart = float(np.abs(one[k] - two[k]).sum())
        if moves[0][1] + moves[1][1] < SMALL * float(a.sum()):
            allowed = SLACK * (moves[0][1] + moves[1][1]) + 1e-15 * float(a.sum())
            judged[k] = True
            if not apart <= allowed:
                words.append(f"plans differ by {apart:.2e}, {allowed:.2e} explained")
        if near < SMALL * float(epsilon):
            df, dg = (f2 - f1)[k], (g2 - g1)[k]
            real_a, real_b = a > 0, b > 0
            gauge = (df @ a - dg @ b) / (a.sum() + b.sum())
            worst = max(
                np.abs(df - gauge)[real_a].max(), np.abs(dg + gauge)[real_b].max()
            )
            size = max(np.abs(f1[k]).max(), np.abs(g1[k]).max())
            if not worst <= SLACK * 2 * near + 4 * h * size:
                words.append(f"potentials differ by {worst:.2e}, {near:.2e} explained")
        out.append(words)
    return out, judged
