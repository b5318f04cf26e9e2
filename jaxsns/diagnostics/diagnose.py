"""`diagnose`: what is wrong with a problem or a solution, in words, and what to do."""

import dataclasses
import functools
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxsns.diagnostics import symptoms
from jaxsns.diagnostics.symptoms import Numbers
from jaxsns.geometry import CostLike, Dense, Grid, PointCloud
from jaxsns.losses.divergence import TERMS, Divergence
from jaxsns.numerics import default_tolerance
from jaxsns.partial import PartialSolution
from jaxsns.problem import arguments, checks
from jaxsns.problem.inputs import as_float, make_problem
from jaxsns.problem.offsets import reduce
from jaxsns.problem.problem import Problem
from jaxsns.recording import summary
from jaxsns.recording.summary import number
from jaxsns.solution import Solution
from jaxsns.status import Status, describe

Subject: TypeAlias = Solution | PartialSolution | Divergence | Problem | CostLike

LARGEST_SEEN = 1 << 24  # pairs of a cloud; of a larger one only some rows [D38]

# Every answer there is, with its cure; docs/statuses.md lists the same names.
CURES = {
    "cost not finite": "look at what computed it (jax_debug_nans stops there); in a "
    "matrix of costs +inf is allowed, and forbids a pair",
    "cost too large": "+inf forbids a pair; divide costs that are meant, and epsilon, "
    "by a number",
    "epsilon not positive": "give an epsilon > 0; with relative_to= or epsilon=None it "
    "is a multiple of a scale of the costs",
    "tolerance not positive": "give a tolerance > 0, or None for the default",
    "bad mass": "masses must be >= 0; with solve_partial look at share, which must be "
    "in (0, 1]",
    "no mass": "give every side some mass; leave empty elements out of a batch, or "
    "mask their results",
    "rho not positive": "give a rho > 0, or None for equality",
    "share out of range": "give a share > 0 and <= 1, of the smaller total",
    "masses differ": "normalise both (a / a.sum()), or allow the difference: rho_a, "
    "rho_b or solve_partial",
    "infeasible": "permit more pairs, or give one side a penalty (rho_a or rho_b) in "
    "place of equality",
    "outliers make the scale": "forbid pairs by a cost of +inf, which counts in no "
    "scale, or give an epsilon (relative_to='median')",
    "constant cost": "look at the costs: every plan is as good as any other",
    "epsilon too large": "if you want a plan that differs from the product, lower "
    "epsilon, e.g. to 0.05 of the costs' deviation, or, for clouds that are far apart, "
    "of the deviation without constants of rows and columns",
    "epsilon very small": "raise epsilon, or divide the costs by their scale "
    "(scale_cost='mean'); for the unregularised optimum round the plan instead "
    "(round_to_feasible, round_to_permutation)",
    "costs far from zero": "subtract the smallest cost, which changes no plan as "
    "long as both marginals are met exactly",
    "epsilon too small for the dtype": "use float64 (jax_enable_x64) or raise epsilon; "
    "no tolerance below that error can be met",
    "ill-conditioned potentials": "use the plan, value or barycentric projection, "
    "which do not see the constants; for derivatives of f and g raise epsilon or use "
    "float64",
    "hardly any mass is moved": "raise rho to about the cost of the moves that you "
    "expect",
    "step limit": "raise max_steps or tolerance",
    "stalled": "raise tolerance or epsilon, use float64; with method 'sns' use 'auto'",
    "overflow": "the values given are finite: look at init, and at derivatives "
    "of what made them",
}


# Values of arguments: what follows from them is no finding of its own.
VALUES = {"cost not finite", "cost too large", "bad mass", "no mass", "masses differ"}
VALUES |= {f"{name} not positive" for name in ("epsilon", "tolerance", "rho")}
SMALL = "epsilon too small for the dtype"  # and what is stalled by it says no more
# Reasons why a plan is a product.
ALIKE = {"outliers make the scale", "constant cost", "epsilon too large"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      name: which, one of those of docs/statuses.md.
      what: what was seen, with numbers.
      cure: what to do about it.
    """

    name: str
    what: str
    cure: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; print it.

    Attributes:
      head: what was looked at, and its status.
      findings: causes first; empty if nothing is wrong.
    """

    head: str
    findings: tuple[Finding, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the findings."""
        return tuple(x.name for x in self.findings)

    def __str__(self) -> str:
        """Say it on a few lines."""
        lines = [summary.screen(x) for x in self.head.splitlines()]
        if not self.findings:
            lines.append("  nothing wrong was found")
        for x in self.findings:
            lines.append(summary.screen(f"  {x.name}: {x.what}", indent=4))
            lines.append(summary.screen(f"    -> {x.cure}", indent=7))
        return "\n".join(lines)

    __repr__ = __str__


def _host(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def _costs(problem: Problem) -> tuple[np.ndarray, slice]:
    """Costs of all rows, or of evenly spaced ones of a large cloud; and which."""
    geometry, rows = problem.geometry, slice(None)
    n, m = problem.shape
    if isinstance(geometry, PointCloud) and n * m > LARGEST_SEEN:
        rows = slice(0, n, -(-n * m // LARGEST_SEEN))
        geometry = dataclasses.replace(geometry, x=geometry.x[rows])
    return _host(geometry.dense().cost), rows


def _numbers(problem: Problem, tolerance: Any) -> tuple[Numbers, slice]:
    """The problem on the host, all of it but perhaps rows of the costs."""
    if tolerance is None:
        tolerance = default_tolerance(problem.dtype)
    tolerance = arguments.as_scalar("tolerance", tolerance, problem.dtype)
    cost, rows = _costs(problem)
    numbers = Numbers(
        {name: _host(x) for name, x in problem.geometry.arrays.items()},
        cost,
        _host(problem.a),
        _host(problem.b),
        float(problem.epsilon),
        None if problem.rho_a is None else _host(problem.rho_a),
        None if problem.rho_b is None else _host(problem.rho_b),
        problem.dtype,
        float(tolerance),
    )
    return numbers, rows


def _centred(problem: Problem) -> Problem:
    """Points as `solve` takes them, around their means; bad ones as they are."""
    if not isinstance(problem.geometry, PointCloud):
        return problem
    arrays = problem.geometry.arrays.values()
    if not all(np.isfinite(np.asarray(v)).all() for v in arrays):
        return problem
    parts = reduce(problem)
    return problem if parts is None else parts[0]


def _with_tolerance(x: Numbers, rows: slice, asked: float) -> Numbers:
    """What the solve was asked for; a default may have been raised for rounding."""
    some = _some(x, rows)
    if not (asked > 0 and some.used.size):
        return x  # other findings say why
    # A default is raised to at most that [D03].
    if x.tolerance < asked <= symptoms.WITHIN * symptoms.rounding_error(some):
        return x._replace(raised=asked)
    return x._replace(tolerance=asked)


def _some(x: Numbers, rows: slice) -> Numbers:
    """Only the rows whose costs are known."""
    one = lambda v: None if v is None else v[rows]
    return x._replace(a=x.a[rows], f=one(x.f), rho_a=one(x.rho_a))


def _of_problem(problem: Problem, x: Numbers, rows: slice) -> list[tuple[str, str]]:
    """What is wrong before anything is solved."""
    out = list(symptoms.bad_values(x))
    if out:
        return out
    agree = bool(checks.totals_agree(problem, np))
    out += symptoms.unequal_totals(x, agree)
    some = _some(x, rows)
    blocked = list(symptoms.no_plan(some)) if rows == slice(None) else []
    out += blocked
    if some.used.size and not blocked:
        out += symptoms.outliers(some)
        out += symptoms.cost_scale(some)
        out += symptoms.precision(some)
    return out


def _of_solution(
    solution: Solution, x: Numbers, whole: bool, before: list[tuple[str, str]]
) -> symptoms.Found:
    """What a solve adds to what was found before: its plan, and how it ended."""
    plan = symptoms.plan_of(x) if whole else None  # None too if f and g are NaN
    error = float(solution.error)
    gap = None
    # Far from the solution its plan says nothing of the conditions there.
    if error < 0.1:
        found = None if plan is None else symptoms.spectral_gap(plan)
        # A larger plan, or one that is never formed, is not decomposed.
        gap, blocks = found or (float(solution.conditioning().gap), 1)
        yield from symptoms.condition(x, gap, blocks)
    if plan is not None:
        yield from symptoms.little_mass(x, plan)
        if error < 0.1 and not {name for name, _ in before} & ALIKE:
            yield from symptoms.product(x, plan)
    status = Status(int(solution.status))
    if status == Status.MAX_STEPS:
        words = (
            f"{number(solution.counts.sweeps, 'sweep')} and "
            f"{number(solution.counts.newton_steps, 'Newton step')} by method "
            f"'{solution.method}' left an error of {error:.1e}"
        )
        if gap is not None and solution.method in ("sinkhorn", "fixed"):
            words += f"; plain sweeps need about {max(2.3 / gap, 1):.0f} a digit there"
        if solution.method in ("sinkhorn", "sns"):
            words += "; 'auto' follows a path in epsilon and needs fewer steps"
        yield "step limit", words
    elif status == Status.STALLED:
        floor = symptoms.rounding_error(x)
        told = SMALL in {name for name, _ in before}
        if told and error <= symptoms.WITHIN * floor:
            return  # rounding is the cause, and was named
        yield (
            "stalled",
            f"the error stands at {error:.1e}; rounding explains about {floor:.0e}",
        )
    elif status == Status.NONFINITE and not before:
        yield "overflow", "a number became NaN or infinite on the way"


def _lane(subject: Any) -> tuple[Any, str]:
    """Pick the first lane that failed, or that of the largest error; and name it."""
    lanes = np.shape(subject.status)
    if not lanes:
        return subject, ""
    status, error = np.asarray(subject.status), np.asarray(_error(subject))
    failed = np.argwhere(status != Status.CONVERGED)
    worst = np.unravel_index(np.argmax(error), lanes)
    index = tuple(int(i) for i in (failed[0] if len(failed) else worst))
    words = f"element {index} of a batch {lanes} ({len(failed)} failed): "
    return jax.tree.map(lambda x: x[index], subject), words


def _error(subject: Any) -> Any:
    return subject.ab.error if isinstance(subject, Divergence) else subject.error


def _of_divergence(divergence: Divergence, tolerance: Any) -> Diagnosis:
    """One finding a cause: what is wrong with the points or masses explains the rest.

    Only where these are fine each of the three solves is looked at.
    """
    divergence, words = _lane(divergence)
    given = _of_problem(divergence.problem, *_numbers(divergence.problem, tolerance))
    bad = [(name, what) for name, what in given if name in VALUES]
    ends: dict[str, list[str]] = {}
    for k, part in zip(TERMS, divergence.parts, strict=True):
        ends.setdefault(describe(int(part.status)), []).append(k)
    head = words + "\n".join(f"{', '.join(ks)}: {end}" for end, ks in ends.items())
    if bad:
        renamed = [(name, _renamed(what, divergence.names)) for name, what in bad]
        return Diagnosis(head, tuple(Finding(n, w, CURES[n]) for n, w in renamed))
    seen: dict[str, Finding] = {}
    for k, part in zip(TERMS, divergence.parts, strict=True):
        for x in diagnose(part, tolerance=tolerance).findings:
            # Their constants cancel in the value: a cloud meets itself in small blocks.
            if k != "ab" and x.name == "ill-conditioned potentials":
                continue
            what = f"{k}: {x.what}"
            seen.setdefault(x.name, dataclasses.replace(x, what=what))
    return Diagnosis(head, tuple(seen.values()))


def _of_partial(solution: PartialSolution, tolerance: Any) -> Diagnosis:
    """What was given comes first, then what the solve with virtual atoms found."""
    solution, words = _lane(solution)
    problem, extended = solution.problem, solution.extended.problem
    given = symptoms.bad_values(_numbers(problem, tolerance)[0])
    found = [(name, what) for name, what in given if name in VALUES]
    virtual = np.append(np.asarray(extended.a), np.asarray(extended.b))
    if not found and np.isnan(virtual).any():
        found = [("share out of range", "share is not in (0, 1]")]
    if not found:
        return diagnose(solution.extended, tolerance=tolerance)
    head = words + describe(int(solution.status))
    return Diagnosis(head, tuple(Finding(n, w, CURES[n]) for n, w in found))


def _renamed(what: str, names: tuple[str, str]) -> str:
    """Words about the arrays x and y, under the names that the user's call has."""
    first, _, rest = what.partition(" ")
    return f"{dict(zip('xy', names, strict=True)).get(first, first)} {rest}"


def diagnose(
    subject: Subject,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    tolerance: ArrayLike | None = None,
    relative_to: str | None = None,
    scale_cost: str | None = None,
    **numbers: Any,
) -> Diagnosis:
    """Say what is wrong with a problem or a solution, and what to do about it.

    Args:
      subject: a `Solution`, `PartialSolution` or `Divergence`, of one problem or
        of a batch (then the first that failed, else that of the largest error); a
        `Problem`; or costs and what else `solve` takes, bad values allowed. A
        solution can tell more than a problem.
      a: [n] masses, with costs only.
      b: [m] masses, with costs only.
      tolerance: [] the one that was or will be asked for; None: the default.
      relative_to: as in `solve`, with costs only.
      scale_cost: as in `solve`, with costs only.
      **numbers: epsilon, rho_a, rho_b as in `solve`, with costs only.

    Returns:
      The `Diagnosis`: print it. Its findings are listed in docs/statuses.md, with the
      cause first. An empty one means that nothing was found, not that all is well:
      look at `solution.converged`.

    Raises:
      TypeError: under `jit`, where there are no numbers to look at; masses or numbers
        beside a problem or a solution. As `solve` for wrong types and shapes.

    Cost: a few passes on the host in float64, O(n m) memory; of a cloud with more than
      2^24 pairs only evenly spaced rows are looked at, and no plan. Singular values of
      a solution's plan, O(n m min(n, m)) time, up to 2048 rows.
    """
    known = isinstance(subject, Problem | Solution | PartialSolution | Divergence)
    beside = [x for x in (a, b, relative_to, scale_cost) if x is not None]
    if known and (beside or numbers):
        raise TypeError(
            f"a {type(subject).__name__} has its own masses, epsilon and scale already"
        )
    if isinstance(subject, Divergence):
        return _of_divergence(subject, tolerance)
    if isinstance(subject, PartialSolution):
        return _of_partial(subject, tolerance)
    if not known:
        # Under jit bad values do not raise, and here they are what is looked for.
        make = functools.partial(
            make_problem, relative_to=relative_to, scale_cost=scale_cost
        )
        if hasattr(subject, "raise_if_failed"):
            raise TypeError(
                "diagnose takes costs, a Problem, or what solve, solve_partial or "
                f"sinkhorn_divergence return; got {type(subject).__name__}, whose "
                "status and raise_if_failed() say how it ended"
            )
        if not isinstance(subject, PointCloud | Dense | Grid):
            subject = as_float("subject", subject)
        numbers = {k: as_float(k, v) for k, v in numbers.items() if v is not None}
        subject = jax.jit(make)(subject, a, b, **numbers)
    if checks.is_traced(*jax.tree.leaves(subject)):
        raise TypeError("diagnose works outside jit only: it looks at the numbers")
    if isinstance(subject, Problem):
        out = _of_problem(subject, *_numbers(_centred(subject), tolerance))
        head = f"Problem({subject.shape[0]} x {subject.shape[1]}, {subject.dtype})"
    else:
        solution, words = _lane(subject)
        # What the solve took out of clouds apart took no digits of the answer.
        problem, f, g = solution.problem, solution.f, solution.g
        if _centred(problem) is not problem:
            problem, f, g = solution.core
        x, rows = _numbers(problem, tolerance)
        x = x._replace(f=_host(f), g=_host(g), error=float(solution.error))
        if tolerance is None:
            x = _with_tolerance(x, rows, float(solution.tolerance))
        out = _of_problem(solution.problem, x, rows)
        if not any(name == "infeasible" for name, _ in out):
            whole = rows == slice(None)
            out += _of_solution(solution, _some(x, rows), whole, list(out))
        head = words + describe(int(solution.status))
    return Diagnosis(head, tuple(Finding(n, w, CURES[n]) for n, w in out))
