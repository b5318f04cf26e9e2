"""What can be wrong with a problem or with its solution, read off numbers on the host.

Each function looks for one kind of trouble and yields what it finds as a pair (name,
words); the cures stand in `diagnosis`. Everything is NumPy in float64.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxsns.numerics import forbidden_cost, machine_epsilon
from jaxsns.problem.checks import not_finite

Found = Iterator[tuple[str, str]]
LARGEST_DECOMPOSED = 2048  # rows of the smaller side, for singular values [D38]
# [D38]
PRODUCT = 0.2  # L1 distance of a plan from the product of its marginals, over its mass
OUTLIER = 10.0  # times the 90 % quantile of the costs above the least [D38]
WITHIN = 3  # factor within which `rounding_error` is right [D38]
FEW = 0.05  # share of the costs, up to which outliers are a handful [D38]


class Numbers(NamedTuple):
    """A problem on the host; f, g, error and so on are None before a solve."""

    arrays: dict[str, np.ndarray]  # what the costs are made of
    cost: np.ndarray  # [n, m]
    a: np.ndarray
    b: np.ndarray
    epsilon: float
    rho_a: np.ndarray | None
    rho_b: np.ndarray | None
    dtype: Any
    tolerance: float
    f: np.ndarray | None = None
    g: np.ndarray | None = None
    error: float | None = None
    raised: float | None = None  # to what the solve raised the default tolerance

    @property
    def banned(self) -> np.ndarray:
        """[n, m] bool: forbidden pairs, as `numerics.is_forbidden`."""
        return self.cost >= 1e-5 * forbidden_cost(self.dtype)

    @property
    def balanced(self) -> bool:
        """Whether equality is asked of all marginals."""
        return self.rho_a is None and self.rho_b is None

    @property
    def used(self) -> np.ndarray:
        """[n, m] costs of permitted pairs of atoms with mass, flat."""
        real = (self.a > 0)[:, None] & (self.b > 0)[None, :]
        return self.cost[real & ~self.banned]


def bad_values(x: Numbers) -> Found:
    """Values that no solve accepts: they raise, or become a status under `jit`.

    An epsilon that is NaN beside bad costs or masses was derived from them.
    """
    causes = [*_bad_costs(x), *_bad_masses(x)]
    yield from causes
    if not (np.isfinite(x.epsilon) and x.epsilon > 0) and not causes:
        yield "epsilon not positive", f"epsilon is {x.epsilon}"
    if not x.tolerance > 0:
        yield "tolerance not positive", f"tolerance is {x.tolerance}"
    for name, rho in (("rho_a", x.rho_a), ("rho_b", x.rho_b)):
        if rho is not None and not np.all(rho > 0):
            i = int(np.argmax(~(rho > 0)))
            yield "rho not positive", f"{name} is {rho[i]:.3g} at index {i}"


def _bad_costs(x: Numbers) -> Found:
    for name, array in x.arrays.items():
        bad = not_finite(name, array)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            yield (
                "cost not finite",
                f"{name} has {_number(bad, 'entry', 'entries')} NaN or infinite, the "
                f"first at {where}",
            )
    far = float(np.dtype(x.dtype).type(forbidden_cost(x.dtype)))  # as it was rounded
    size = np.where(np.isfinite(x.cost) & (x.cost != far), np.abs(x.cost), 0)
    large = size >= 1e-5 * far
    if large.any():
        yield (
            "cost too large",
            f"{large.sum()} costs are finite and {1e-5 * far:.0e} or more in size, the "
            f"largest {size.max():.3g}",
        )


def _number(bad: np.ndarray, one: str, many: str) -> str:
    """How many are bad: "1 entry that is", "3 entries that are"."""
    count = int(bad.sum())
    return f"{count} {one} that is" if count == 1 else f"{count} {many} that are"


def _bad_masses(x: Numbers) -> Found:
    if np.isnan(x.a).all() and np.isnan(x.b).all():
        yield (
            "bad mass",
            (
                "all masses of a and b are NaN; a side that is left out has the "
                "total of the other one"
            ),
        )
        return
    if x.a.sum() == 0 and x.b.sum() == 0:
        yield (
            "no mass",
            "the totals of a and b are 0: nothing can be moved (a side that is left "
            "out has the total of the other one)",
        )
        return
    sides = {"a": x.a, "b": x.b}
    # Equal masses in place of what was left out: their NaN is the other side's.
    sides = {k: v for k, v in sides.items() if not np.isnan(v).all()} or sides
    for name, mass in sides.items():
        bad = ~(np.isfinite(mass) & (mass >= 0))
        if bad.any():
            i = int(np.argmax(bad))
            yield (
                "bad mass",
                f"{name} has {_number(bad, 'mass', 'masses')} negative or not finite, "
                f"the first {mass[i]:.3g} at index {i}",
            )
        elif not mass.sum() > 0:
            yield "no mass", f"the total of {name} is 0: nothing can be moved"


def unequal_totals(x: Numbers, agree: bool) -> Found:
    """Totals of marginals that must be met exactly; `agree` as `checks` sees it."""
    a, b = x.a.sum(), x.b.sum()
    if not agree:
        yield (
            "masses differ",
            f"the masses of a sum to {a:.9g} and those of b to {b:.9g}, "
            f"{abs(a - b) / a:.1e} of the first; where equality is asked for, they "
            "must agree to rounding",
        )


def hall_violation(x: Numbers) -> tuple[str, np.ndarray, float, float] | None:
    """Rows (or columns) that have more mass than all they may use, if f or g show it.

    The sets tried are those of the largest potentials, see `feasibility`; without
    potentials single atoms.
    """
    sides = (
        ("row", ~x.banned, x.a, x.rho_a, x.b, x.rho_b, x.f),
        ("column", ~x.banned.T, x.b, x.rho_b, x.a, x.rho_a, x.g),
    )
    for name, open_, mass, rho, other, other_rho, potential in sides:
        must = mass if rho is None else np.where(np.isinf(rho), mass, 0)
        can = other
        if other_rho is not None:
            can = np.where(np.isinf(other_rho) | (other <= 0), other, np.inf)
        lonely = (must > 0) & ~(open_ & (other > 0)[None, :]).any(axis=1)
        if lonely.any():
            return name, np.flatnonzero(lonely), float(must[lonely].sum()), 0.0
        if potential is None or np.isnan(potential).any():
            continue
        order = np.argsort(-np.where(mass > 0, potential, -np.inf), kind="stable")
        order = order[mass[order] > 0]
        reach = np.cumsum(np.where(open_[order], 1, 0), axis=0) > 0
        have, room = np.cumsum(must[order]), np.where(reach, can, 0).sum(axis=1)
        over = have - room > 1e-4 * mass.sum()
        if over.any():
            k = int(np.argmax(over))
            return name, order[: k + 1], float(have[k]), float(room[k])
    return None


def no_plan(x: Numbers) -> Found:
    """Forbidden pairs that leave no plan."""
    found = hall_violation(x) if x.banned.any() else None
    if found is not None:
        name, which, have, room = found
        shown = ", ".join(str(i) for i in which[:5]) + (", ..." * (len(which) > 5))
        yield (
            "infeasible",
            f"{len(which)} {name}(s), {shown}, must send {have:.4g} of mass, and all "
            f"that they may be paired with can take {room:.4g}",
        )


def ordinary(x: Numbers) -> np.ndarray:
    """Costs of `used` without a handful of outliers, if there are any."""
    above = x.used - x.used.min()
    usual = OUTLIER * np.quantile(above, 0.9)
    few = 0 < (above > usual).mean() <= FEW
    return x.used[above <= usual] if few and usual > 0 else x.used


def outliers(x: Numbers) -> Found:
    """A handful of costs so large that epsilon was chosen by them."""
    rest = ordinary(x)
    number, spread = x.used.size - rest.size, float(np.ptp(rest))
    if number and x.epsilon > spread:
        yield (
            "outliers make the scale",
            f"{number} of {x.used.size} costs, up to {x.used.max():.3g}, are far above "
            f"all others, which differ by at most {spread:.3g}; epsilon is "
            f"{x.epsilon:.3g}, so the others hardly count",
        )


def cost_scale(x: Numbers) -> Found:
    """Costs against epsilon, and against their own offset."""
    rest = ordinary(x)
    least, most = float(rest.min()), float(rest.max())
    spread = most - least
    if spread == 0:
        yield "constant cost", f"every permitted pair costs {most:.4g}"
        return
    if x.epsilon > spread and rest.size == x.used.size:
        yield (
            "epsilon too large",
            f"epsilon is {x.epsilon:.3g}, the costs differ by at most {spread:.3g}: "
            "the plan is close to the product of the marginals",
        )
    if x.epsilon < 1e-6 * spread:
        yield (
            "epsilon very small",
            f"epsilon is {x.epsilon / spread:.1e} of the spread of the costs, below "
            "what this library is measured at (1e-4)",
        )
    # With penalties that common part decides how much is moved.
    if x.balanced and abs(least) > 10 * spread:
        yield (
            "costs far from zero",
            f"the costs lie between {least:.4g} and {most:.4g}; the offset "
            "does not affect the plan, but costs precision",
        )


def potential_size(x: Numbers) -> float:
    """Largest |f| or |g| of an atom with mass, or a guess from the costs."""
    if x.f is not None and x.g is not None:
        both = np.concatenate([x.f[x.a > 0], x.g[x.b > 0]])
        if np.isfinite(both).all():
            return float(np.abs(both).max())
    used = ordinary(x)
    return 0.5 * abs(float(used.min())) + 0.1 * float(used.max() - used.min())


def rounding_error(x: Numbers) -> float:
    """Marginal error that rounding of the potentials alone costs, within a factor of 3.

    A potential of size s is known to u s, and the plan to u s / epsilon of itself;
    0.5 of that, and 4 u, is what was measured (uniform costs, points and costs with
    an offset, n = 60 and 300, epsilon 0.1 to 1e-4, both dtypes).
    """
    unit = machine_epsilon(x.dtype)
    return unit * (4 + 0.5 * potential_size(x) / x.epsilon)


def precision(x: Numbers) -> Found:
    """Whether the dtype can reach the tolerance at this epsilon."""
    floor = rounding_error(x)
    if floor > x.tolerance:
        words = f"the tolerance is {x.tolerance:.1e}"
        if x.raised is not None:
            words = f"the default tolerance was raised to {x.raised:.1e}"
        yield (
            "epsilon too small for the dtype",
            f"rounding of potentials of size {potential_size(x):.3g} over epsilon = "
            f"{x.epsilon:.3g} alone gives a marginal error of about {floor:.1e} in "
            f"{np.dtype(x.dtype).name}; {words}",
        )


def plan_of(x: Numbers) -> np.ndarray | None:
    """[n, m] plan of finite potentials, else None."""
    if x.f is None or x.g is None:
        return None
    f, g = np.where(x.a > 0, x.f, -np.inf), np.where(x.b > 0, x.g, -np.inf)
    if np.isnan(f).any() or np.isnan(g).any():
        return None
    with np.errstate(over="ignore"):
        plan = np.exp((f[:, None] + g[None, :] - x.cost) / x.epsilon)
    return plan if np.isfinite(plan).all() else None


def spectral_gap(plan: np.ndarray) -> tuple[float, int] | None:
    """1 - sigma^2 of the normalised plan, and into how many blocks it has split.

    sigma is the second singular value; None where the decomposition is too large or
    there is no second one.
    """
    plan = plan[plan.sum(axis=1) > 0][:, plan.sum(axis=0) > 0]
    if not 1 < min(plan.shape) <= LARGEST_DECOMPOSED:
        return None
    rows, columns = plan.sum(axis=1), plan.sum(axis=0)
    scaled = plan / np.sqrt(rows)[:, None] / np.sqrt(columns)[None, :]
    sigma = np.linalg.svd(scaled, compute_uv=False)
    gaps = np.clip(1 - sigma[1:] ** 2, 1e-16, 1)
    return float(gaps[0]), 1 + int((gaps < 1e-10).sum())


def condition(x: Numbers, gap: float, blocks: int) -> Found:
    """Whether the plan fixes the potentials: errors grow by 1 / gap."""
    unit = machine_epsilon(x.dtype)
    # What is short of the tolerance has other troubles, and this is of the solution.
    grown = max(min(x.error or 0.0, x.tolerance), unit) / gap
    if grown > 1e-2 and x.balanced:
        how = (
            f"has split into {blocks} blocks"
            if blocks > 1
            else "is nearly in separate blocks"
        )
        known = f"known to {grown:.0e} of epsilon only" if grown < 1 else "not known"
        yield (
            "ill-conditioned potentials",
            f"the plan {how} (1 - sigma^2 = {gap:.1e}): the constants of "
            f"f and g by block, and derivatives along them, are {known}",
        )


def product(x: Numbers, plan: np.ndarray) -> Found:
    """A plan that is nearly the product of its marginals: epsilon blurs all of it."""
    rows, columns, total = plan.sum(axis=1), plan.sum(axis=0), plan.sum()
    if not total > 0 or min((rows > 0).sum(), (columns > 0).sum()) < 2:
        return
    distance = np.abs(plan - rows[:, None] * columns[None, :] / total).sum() / total
    if distance > PRODUCT:
        return
    scale = _interaction(x, rows / total, columns / total)
    yield (
        "epsilon too large",
        f"the plan differs from the product of its marginals by {distance:.1e} of its "
        f"mass; epsilon is {x.epsilon:.3g}, and the part of the costs that matters, "
        "what is left of them without a constant for each row and column, has a "
        f"standard deviation of {scale:.3g} (0.05 of that: {0.05 * scale:.2g})",
    )


def _interaction(x: Numbers, rows: np.ndarray, columns: np.ndarray) -> float:
    """Deviation of the costs less their means of rows and of columns."""
    cost = np.where(x.banned, 0, x.cost)
    weights = np.where(x.banned, 0, rows[:, None] * columns[None, :])
    mean = lambda axis: (weights * cost).sum(axis, keepdims=True) / np.maximum(
        weights.sum(axis, keepdims=True), np.finfo(float).tiny
    )
    for axis in (1, 0):
        cost = cost - mean(axis)
    return float(np.sqrt((weights * cost**2).sum() / weights.sum()))


def little_mass(x: Numbers, plan: np.ndarray) -> Found:
    """Penalties so small that mass is destroyed instead of moved."""
    if x.balanced:
        return
    moved, given = plan.sum(), min(x.a.sum(), x.b.sum())
    if moved < 1e-2 * given:
        yield (
            "hardly any mass is moved",
            f"the plan has {moved:.2e} of {given:.3g}: destroying mass costs less "
            "(about the sum of the two rho) than moving it",
        )
