"""Whether the values of a problem make sense: an error, or a status under `jit`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns import control
from jaxsns.numerics import machine_epsilon, permitted_costs
from jaxsns.problem.problem import Problem
from jaxsns.status import Status, code


def is_traced(*arrays: Any) -> bool:
    """Whether any of them has no value yet."""
    return any(isinstance(x, Tracer) for x in arrays)


def mass_slack(dtype: jnp.dtype, n: int, m: int) -> float:
    """Relative difference of two totals that counts as rounding."""
    return 8 * machine_epsilon(dtype) * max(n + m, 64) ** 0.5


def coarseness(value: Any) -> float:
    """Relative rounding of a total of masses below 32 bits; 0 for any other dtype.

    Of a softmax the exponential, the sum and the quotient are rounded, by half a unit
    each, and often all in one direction, so the number of atoms does not count.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return 0.0
    return 4 * machine_epsilon(dtype) if jnp.finfo(dtype).bits < 32 else 0.0


def equalised(masses: jax.Array, total: jax.Array, slack: float) -> jax.Array:
    """Masses [..., n] scaled to a total [..., 1] that they have to within a slack.

    Others are left as they are, for the check of totals. The factor is a constant in
    derivatives, so these are what they are for masses of full precision.
    """
    own = jnp.sum(masses, axis=-1, keepdims=True)
    near = (jnp.abs(own - total) <= slack * total) & (own > 0)
    factor = jnp.where(near, total / jnp.where(near, own, 1), 1)
    return masses * jax.lax.stop_gradient(factor)


def totals_agree(problem: Problem, xp: Any) -> Any:
    """Whether some plan can have the marginals that must be met exactly.

    What is asked of all atoms of a side fixes the total; what is asked of some, with
    others that may take any positive mass, bounds it from below.
    """
    sides = []
    for mass, rho in ((problem.a, problem.rho_a), (problem.b, problem.rho_b)):
        mass = xp.asarray(mass)
        soft = xp.zeros(mass.shape, bool) if rho is None else ~xp.isinf(xp.asarray(rho))
        sides.append((xp.sum(xp.where(soft, 0, mass)), xp.any(soft & (mass > 0))))
    (a, a_soft), (b, b_soft) = sides
    slack = mass_slack(problem.dtype, *problem.shape) * a
    equal = abs(a - b) <= slack
    one = xp.where(a_soft, b - a > slack, xp.where(b_soft, a - b > slack, equal))
    return one | (a_soft & b_soft)


def validity(problem: Problem) -> jax.Array:
    """[] int32 status of the values of a problem: RUNNING if they are fine."""
    a, b, epsilon = problem.a, problem.b, problem.epsilon
    fine = jnp.all(jnp.isfinite(a) & (a >= 0)) & jnp.all(jnp.isfinite(b) & (b >= 0))
    fine &= (jnp.sum(a) > 0) & (jnp.sum(b) > 0)
    # An epsilon that was derived from bad costs is NaN with them: they are the cause.
    spoilt = fine & control.cond(
        jnp.isnan(epsilon), lambda: _costs_spoilt(problem), lambda: jnp.asarray(False)
    )
    fine &= jnp.isfinite(epsilon) & (epsilon > 0)
    for rho in (problem.rho_a, problem.rho_b):
        if rho is not None:
            fine &= jnp.all(rho > 0)
    status = jnp.where(
        totals_agree(problem, jnp), code(Status.RUNNING), code(Status.MASS_MISMATCH)
    )
    status = jnp.where(fine, status, code(Status.INVALID_INPUT))
    return jnp.where(spoilt, code(Status.NONFINITE), status).astype(jnp.int32)


def _costs_spoilt(problem: Problem) -> jax.Array:
    """[] bool: NaN, an infinity that forbids nothing, or too large a cost."""
    out = jnp.asarray(False)
    for name, array in problem.geometry.arrays.items():
        bad = jnp.isnan(permitted_costs(array)) if name == "cost" else None
        out |= jnp.any(~jnp.isfinite(array) if bad is None else bad)
    return out


def require(condition: bool, message: Callable[[], str]) -> None:
    """Raise ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message())


def not_finite(name: str, array: np.ndarray) -> np.ndarray:
    """Where an array of a geometry is bad; a cost of +inf is not: it forbids a pair."""
    return ~np.isfinite(array) & ~((name == "cost") & (array == np.inf))


def check_values(problem: Problem) -> None:
    """Raise ValueError for bad values in whatever is not traced; name the argument."""
    check_arrays(problem.geometry, problem.a, problem.b)
    _check_numbers(problem)


def check_arrays(geometry: Any, a: jax.Array, b: jax.Array) -> None:
    """Costs and masses, from which a scale, and so epsilon, may be derived."""
    for name, array in geometry.arrays.items():
        if not is_traced(array):
            bad = not_finite(name, np.asarray(array))
            require(
                not bad.any(),
                lambda n=name, w=bad: (
                    f"{n} must be finite; got {int(w.sum())} NaN or infinite entries, "
                    f"the first at {tuple(int(i) for i in np.argwhere(w)[0])}"
                ),
            )
    for name, masses in (("a", a), ("b", b)):
        if is_traced(masses):
            continue
        host = np.asarray(masses)
        wrong = ~(np.isfinite(host) & (host >= 0))
        require(
            not wrong.any(),
            lambda n=name, h=host, w=wrong: (
                f"{n} must hold finite masses >= 0; got {h[w][0]} "
                f"at index {int(np.argmax(w))}"
            ),
        )
        require(host.sum() > 0, lambda n=name: f"{n} must have a positive total")


def _check_numbers(problem: Problem) -> None:
    epsilon = problem.epsilon
    if not is_traced(epsilon):
        value = float(epsilon)
        require(
            np.isfinite(value) and value > 0,
            lambda: f"epsilon must be positive and finite; got {value}",
        )
    rhos = problem.rho_a, problem.rho_b
    for name, rho in zip(("rho_a", "rho_b"), rhos, strict=True):
        if rho is not None and not is_traced(rho):
            host = np.asarray(rho)
            wrong = ~(host > 0)
            require(
                not wrong.any(),
                lambda n=name, h=host, w=wrong: (
                    f"{n} must be positive, inf for equality; got {h[w][0]} "
                    f"at index {int(np.argmax(w))}"
                ),
            )
    if not is_traced(problem.a, problem.b, *rhos):
        totals = [np.asarray(x).sum(dtype=np.float64) for x in (problem.a, problem.b)]
        require(
            bool(totals_agree(problem, np)),
            lambda: (
                f"a and b must have equal totals; got {totals[0]:.9g} and "
                f"{totals[1]:.9g} (normalise both, e.g. a / a.sum())"
                if problem.balanced
                else "no plan can have the marginals that must be met exactly: masses "
                f"of a {totals[0]:.9g}, of b {totals[1]:.9g}, those with infinite rho "
                "of one side must not exceed what the other side can take"
            ),
        )
