"""What users are told: names for those of other libraries, and objects on one line.

The names are those of OTT-JAX, POT and GeomLoss; docs/migration.md has whole programs.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jax.core import Tracer

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C", bound=type)

NOTHING = "no argument: "  # begins the hint of what nothing here stands for
GIVE = "give it"  # and that of what another function takes
# Arguments of other libraries, and what does their work here.
ARGUMENTS = {
    "tau_a": "rho_a, with rho = epsilon tau / (1 - tau); leave it out for tau = 1",
    "tau_b": "rho_b, with rho = epsilon tau / (1 - tau); leave it out for tau = 1",
    "threshold": "tolerance, the L1 error of both marginals",
    "stopThr": "tolerance, the L1 error of both marginals",
    "atol": "tolerance, the L1 error of both marginals",
    "tol": "tolerance, the L1 error of both marginals",
    "reg": "epsilon, in units of cost",
    "eps": "epsilon, in units of cost",
    "blur": "epsilon; for squared distances |x - y|^2 / 2 it is blur^2",
    "reg_m": "rho_a and rho_b",
    "reach": "rho; for squared distances |x - y|^2 / 2 it is reach^2",
    "max_iterations": "max_steps",
    "max_iter": "max_steps",
    "maxiter": "max_steps",
    "numIterMax": "max_steps",
    "numItermax": "max_steps",
    "iterations": "max_steps",
    "p": "cost='sqeuclidean' or 'euclidean', or costs.pnorm(p)",
    "power": "cost, a name or a function of two points",
    "unbalanced": "rho (or rho_a and rho_b), the weight of the penalties",
    "tau": "rho, with rho = epsilon tau / (1 - tau); leave it out for tau = 1",
    "ranks": "no argument: marginals without mass are masked by a and b",
    "backend": "streamed=True or False of a PointCloud; None chooses",
    "mask": "where, the elements that count, or zero masses in a and b",
    "static_b": "no argument: all derivatives are there, use lax.stop_gradient",
    "sinkhorn_kwargs": "the keywords themselves, which go to solve",
    "solve_kwargs": "the keywords themselves, which go to solve",
    "weights_a": "a, the masses",
    "weights_b": "b, the masses",
    "debias": "no argument: sinkhorn_divergence is debiased, solve is not",
    "scaling": "no argument: methods choose their path in epsilon",
    "diameter": "no argument: methods choose their path in epsilon",
    "stop_thr": "tolerance, the L1 error of both marginals",
    "n_iters": "max_steps, with early_stop=False for a fixed number",
    "min_iterations": "max_steps with early_stop=False, a fixed number of sweeps",
    "inner_iterations": "no argument: errors are looked at when they are worth a pass",
    "implicit_diff": "no argument: derivatives are always implicit",
    "momentum": "no argument: methods choose it (method='sinkhorn')",
    "lse_mode": "no argument: all methods are stable in the logarithm",
    "initializer": "init, a pair of potentials (f, g)",
    "warmstart": "init, a pair of potentials (f, g)",
    "init_dual_a": "init, a pair of potentials (f, g)",
    "init_dual_b": "init, a pair of potentials (f, g)",
    "verbose": "progress=True, or history=True",
    "log": "history=True; the potentials are solution.f and solution.g",
    "progress_fn": "progress, a function of a Step",
    "cost_fn": "cost, a name or a function of two points",
    "metric": "cost, a name or a function of two points",
    "cost_matrix": "cost, the first argument",
    "M": "cost, the first argument",
    "batch_size": "streamed=True, and block for the number of columns at a time",
    "online": "streamed=True",
    "relative_epsilon": "relative_to='std', 'mean', 'median' or 'max'",
}
# The same of arguments that here belong to the solve, not to a geometry.
ELSEWHERE = {
    name: f"{GIVE} to the solve, solve(geometry, {name}=...)"
    for name in ("epsilon", "relative_to", "scale_cost")
}
ITS_OWN = re.compile(r"\w+")  # a hint begins with the name of an argument
UNEXPECTED = re.compile(r"(\w+\.)*\w+\(\) (got an unexpected keyword argument .*)")
# Attributes of geometries; what a geometry has itself is not asked for here.
GEOMETRY_ATTRIBUTES = {
    "epsilon": "epsilon of solve, or of the Problem",
    "cost_matrix": "dense().cost",
    "kernel_matrix": "jnp.exp(-geometry.dense().cost / epsilon)",
    "cost_fn": "cost",
    "scale_cost": "scale_cost of solve",
    "inv_scale_cost": "scale_cost of solve",
    "online": "streamed",
    "batch_size": "block",
    "is_online": "streamed",
    "subset": "x[rows] and y[columns], in a new geometry",
}
# Attributes of results without an entropy.
UNREGULARISED = {"reg_ot_cost": "value; it has no entropy"}
# Attributes of results.
ATTRIBUTES = {
    "matrix": "plan(), a method: it forms [n, m] numbers",
    "reg_ot_cost": "value; its entropy is not relative to a b^T, see docs/migration.md",
    "ent_reg_cost": "value",
    "primal_cost": "transport_cost, <C, P>",
    "dual_cost": "value",
    "kl_reg_cost": "value",
    "divergence": "value of a Divergence",
    "potentials": "f and g",
    "scalings": "f and g; exp(f / epsilon) and exp(g / epsilon)",
    "errors": "history, after solve(..., history=True), and error",
    "n_iters": "counts",
    "geom": "problem.geometry",
    "a": "problem.a",
    "b": "problem.b",
    "transport_mass": "marginals()[0].sum()",
    "marginal": "marginals()",
    "lazy_plan": "apply and barycentric, which need no plan",
    "value_linear": "transport_cost, <C, P>",
    "value_quad": "value",
    "linear_convergence": "converged",
    "potential_a": "f",
    "potential_b": "g",
    "u": "f; exp(f / epsilon) is the scaling",
    "v": "g; exp(g / epsilon) is the scaling",
    "marginal_a": "marginals()[0]",
    "marginal_b": "marginals()[1]",
    "transport": "barycentric, or transport_map of the solution for new points",
    "ot_prob": "problem",
    "to_dual_potentials": "c_transform and transport_map, functions of the solution",
}


def answered(function: Callable[P, T], more: dict[str, str] | None = None):
    """Let a function answer to argument names of other libraries with its own."""
    parameters = inspect.signature(function).parameters
    known = {k: v.kind for k, v in parameters.items() if k != "self"}
    names = {k: v for k, v in (ARGUMENTS | (more or {})).items() if k not in known}

    @functools.wraps(function)
    def asked(*args: P.args, **kwargs: P.kwargs) -> T:
        for name in names.keys() & kwargs.keys():
            advice = _advice(names[name], known)
            raise TypeError(f"no argument {name!r} here; {advice}")
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            found = UNEXPECTED.fullmatch(str(error))
            if found is None or not any(repr(k) in found[2] for k in kwargs):
                raise
        # What it hands on, to `solve` say, is told in the name of what was called.
        name = function.__qualname__.removesuffix(".__init__")
        raise TypeError(f"{name}() {found[2]}")

    return asked


def _advice(hint: str, known: dict[str, Any]) -> str:
    """A hint, or the arguments that there are if it names none of these."""
    if hint.startswith(NOTHING):
        return f"there is nothing to set: {hint.removeprefix(NOTHING)}"
    if hint.startswith(GIVE):
        return hint
    found = ITS_OWN.match(hint)
    options = inspect.Parameter.VAR_KEYWORD in known.values()
    if options or (found and found[0] in known):
        return f"use {hint}"
    return f"the arguments are {', '.join(known)}"


def geometry(cls: C) -> C:
    """Let a geometry answer likewise, also to what belongs to a solve here."""

    def missing(self: object, name: str) -> Any:
        raise attribute(self, name, GEOMETRY_ATTRIBUTES)

    setattr(cls, "__init__", answered(cls.__init__, ELSEWHERE))  # noqa: B010
    setattr(cls, "__getattr__", missing)  # noqa: B010
    return cls


def attribute(
    owner: object, name: str, known: dict[str, str] = ATTRIBUTES
) -> AttributeError:
    """Error for a name that an object has not, with the one it has."""
    hint = f"; use {known[name]}" if name in known else ""
    return AttributeError(f"{type(owner).__name__!r} has no attribute {name!r}{hint}")


def brief(value: Any) -> str:
    """Text of a value that fits on a line: of an array its dtype and shape."""
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return f"({', '.join(brief(x) for x in value)})"
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dataclasses.is_dataclass(value) or dtype is None or shape is None:
        return getattr(value, "__qualname__", None) or repr(value)
    if shape == () and not isinstance(value, Tracer):
        scalar: Any = value
        try:
            number = scalar.item()
            return f"{number:.6g}" if isinstance(number, float) else str(number)
        except (AttributeError, TypeError, ValueError):  # a shape without a value
            pass
    return f"{dtype}{list(shape)}"


def one_line(self: Any) -> str:
    """`repr` of a dataclass or named tuple of arrays.

    What is None is left out, and a switch that is off by default and is off.
    """
    names = getattr(self, "_fields", None)
    if names is None:
        off = lambda x: x.default is False and getattr(self, x.name) is False
        fields = [x for x in dataclasses.fields(self) if x.repr and not off(x)]
        names = [field.name for field in fields]
    shown = [(name, getattr(self, name)) for name in names]
    words = [f"{name}={brief(value)}" for name, value in shown if value is not None]
    return f"{type(self).__name__}({', '.join(words)})"
