"""`solve_quadratic`: check the input, iterate, attach the derivative."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.geometry import CostLike, Dense, Grid, PointCloud
from jaxsns.outer import derivative
from jaxsns.outer.iteration import State, as_options
from jaxsns.problem import arguments
from jaxsns.problem.checks import is_traced
from jaxsns.problem.inputs import as_float, make_problem
from jaxsns.problem.offsets import reduce
from jaxsns.problem.problem import Problem
from jaxsns.quadratic import forms, units
from jaxsns.quadratic import starts as starting
from jaxsns.quadratic.iterate import iterate
from jaxsns.quadratic.solution import QuadraticSolution
from jaxsns.quadratic.spaces import (
    LowRank,
    Matrix,
    around_mean,
    as_space,
    astype,
    fine,
    symmetric,
)
from jaxsns.quadratic.starts import Start
from jaxsns.quadratic.terms import LOSSES, Terms
from jaxsns.solvers import loop, registry
from jaxsns.solvers.options import Options as Method
from jaxsns.status import Status, code


def _in_range(name: str, value: Any, dtype: Any, least: bool) -> jax.Array:
    """[] a number from 0, included if `least`, to 1; NaN if it is traced and is not."""
    value = as_float(name, value)
    if value.shape != ():
        raise ValueError(f"{name} must be a scalar; got shape {value.shape}")
    value = value.astype(dtype)
    inside = lambda x: ((x >= 0) if least else (x > 0)) & (x <= 1)
    if not isinstance(value, Tracer) and not inside(float(value)):
        interval = "[0, 1]" if least else "(0, 1]"
        raise ValueError(f"{name} must be in {interval}; got {value}")
    return jnp.where(inside(value), value, jnp.nan)


def _penalty(name: str, rho: Any) -> Any:
    if rho is not None and jnp.shape(rho) != ():
        raise ValueError(f"{name} must be a scalar; got shape {jnp.shape(rho)}")
    return rho


def _linear(linear: Any, shape: tuple[int, int]) -> Any:
    """The cost between the spaces as a geometry; zero if there is none."""
    if linear is None:
        # A cost of zero that takes no memory.
        return PointCloud(jnp.zeros((shape[0], 1)), jnp.zeros((shape[1], 1)))
    if not isinstance(linear, PointCloud | Grid | Dense):
        linear = Dense(as_float("linear", linear))
    if linear.shape != shape:
        raise ValueError(
            f"linear must have shape [n, m] = {list(shape)}; got {linear.shape}"
        )
    # +inf forbids a pair of a matrix.
    wrong = np.isnan if isinstance(linear, Dense) else lambda v: ~np.isfinite(v)
    for values in jax.tree.leaves(linear):
        if not is_traced(values) and wrong(np.asarray(values, float)).any():
            kind = "NaN" if isinstance(linear, Dense) else "NaN or infinite"
            raise ValueError(f"linear must not be {kind}; got such entries")
    return linear


def _weight(alpha: Any, linear: Any) -> Any:
    if linear is None and alpha is not None:
        raise ValueError("alpha weighs the quadratic term against linear: give both")
    if linear is None:
        return 1.0
    return 0.5 if alpha is None else alpha


def make_terms(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    *,
    epsilon: Any,
    linear: Any,
    alpha: Any,
    rho_a: Any,
    rho_b: Any,
    share: Any,
    loss: str,
) -> tuple[Terms, jax.Array]:
    """Check the inputs of `solve_quadratic` and put them into one dtype.

    Also returns [] bool: the costs within the spaces are finite and symmetric.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {loss!r}")
    if share is not None and not (rho_a is None and rho_b is None):
        raise ValueError("share is for marginals that are not penalised: give no rho")
    x, y = as_space("x", x), as_space("y", y)
    alpha = _weight(alpha, linear)
    geometry = _linear(linear, (x.size, y.size))
    dtypes = [v.dtype for v in jax.tree.leaves((x, y))]
    if linear is not None:
        dtypes.append(geometry.dtype)
    dtypes += [as_float(k, v).dtype for k, v in (("a", a), ("b", b)) if v is not None]
    dtype = np.result_type(*dtypes)
    geometry = geometry.astype(dtype)
    # Totals may differ where a share is moved, as they may for penalties.
    rhos = (_penalty("rho_a", rho_a), _penalty("rho_b", rho_b))
    stand_in = rhos if share is None else (1.0, 1.0)
    masses = make_problem(
        geometry, a, b, epsilon=epsilon, rho_a=stand_in[0], rho_b=stand_in[1]
    )
    if share is not None:
        masses = Problem(masses.geometry, masses.a, masses.b, masses.epsilon)
        share = _in_range("share", share, masses.dtype, False)
    good = fine(x) & fine(y)
    x, y = (symmetric(astype(v, dtype)) for v in (x, y))
    x, y = around_mean(x, masses.a), around_mean(y, masses.b)
    offsets = None
    if linear is not None and share is None:
        masses, offsets = reduce(masses) or (masses, None)
    if loss == "kl":
        x, y = (Matrix(v.entries()) for v in (x, y))
        _require_positive(x, y)
    alpha = _in_range("alpha", alpha, dtype, True)
    return Terms(x, y, alpha, masses, share, offsets, loss, linear is None), good


def _require_positive(x: Matrix, y: Matrix) -> None:
    for name, cost, least in (("x", x.cost, False), ("y", y.cost, True)):
        if isinstance(cost, Tracer):
            continue
        smallest = float(jnp.min(cost))
        if smallest < 0 or (least and smallest == 0):
            wanted = "positive" if least else "not negative"
            raise ValueError(
                f"entries of {name} must be {wanted} for loss='kl'; got {smallest}"
            )


def _validity(terms: Terms, good: jax.Array) -> jax.Array:
    """[] int32 RUNNING, or INVALID_INPUT."""
    good &= jnp.isfinite(terms.alpha)
    if terms.share is not None:
        good &= jnp.isfinite(terms.share)
    if terms.loss == "kl":
        good &= jnp.all(terms.x.entries() >= 0) & jnp.all(terms.y.entries() > 0)
    bad = code(Status.INVALID_INPUT)
    return loop.as_status(jnp.where(good, code(Status.RUNNING), bad))


@functools.partial(jax.jit, static_argnums=3)
def _attached(
    terms: Terms, end: State, tolerance: jax.Array, method: str
) -> QuadraticSolution:
    """Attach the derivatives."""
    own, unit = units.reduced(terms)
    linear, carried, value = derivative.attached(forms, own, end, tolerance, method)
    f, g = forms.potentials(own, carried, linear.f, linear.g)
    return QuadraticSolution(
        linear, unit, terms, unit * f, unit * g, unit * value,
        end.change, end.status, end.steps,
    )  # fmt: skip


@hints.answered
def solve_quadratic(
    x: CostLike | LowRank,
    y: CostLike | LowRank,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    *,
    epsilon: ArrayLike,
    linear: CostLike | None = None,
    alpha: ArrayLike | None = None,
    rho_a: ArrayLike | None = None,
    rho_b: ArrayLike | None = None,
    share: ArrayLike | None = None,
    loss: str = "square",
    init: Start = "product",
    key: ArrayLike | None = None,
    starts: int = 1,
    anneal: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    inner_tolerance: ArrayLike | None = None,
    max_steps: ArrayLike | None = None,
    method: str | Method = "auto",
) -> QuadraticSolution:
    """Solve entropic (fused) Gromov-Wasserstein transport between two spaces.

        F(P) = alpha Q(P) + (1 - alpha) <M, P> + epsilon sum P (log P - 1)
        Q(P) = sum_ijkl loss(x_ik, y_jl) P_ij P_kl

    is made stationary over P >= 0 with P 1 = a and P^T 1 = b. Users of POT and OTT-JAX
    know it as entropic Gromov-Wasserstein. With rho, masses are relaxed, and

        F(P) = alpha Q(P) + (1 - alpha) <M, P> + rho_a T(P 1, a) / 2
               + rho_b T(P^T 1, b) / 2 + epsilon T(P, a b^T) / 2,
        T(u, v) = KL(u x u | v x v) = 2 |u| <u, log u/v> - |u|^2 + |v|^2

    (a marginal without rho is met exactly). With share, a part of the mass is moved.

    Args:
      x: costs within the first space: a symmetric matrix [n, n], `PointCloud(x, x)`,
        `LowRank` factors, or a `Grid` (its matrix is formed). Squared distances and
        factors are never formed; those of other clouds are.
      y: costs within the second space, m points; in the unit of x.
      a: [n] masses >= 0; uniform with total 1 if None.
      b: [m] masses >= 0, with the same total unless relaxed; uniform if None.
      epsilon: [] regularisation > 0, in units of F over mass: for the square loss, of
        squared costs.
      linear: [n, m] cost M between the spaces, or a geometry; None: none.
      alpha: [] from 0 to 1, weight of Q, as in POT; None: 0.5, and 1 without linear.
      rho_a: [] weight > 0 of the penalty of the rows; None or infinite: equality.
      rho_b: [] the same for the columns.
      share: [] in (0, 1], of min(sum a, sum b), that is moved. The entropy is that of
        the virtual pairs as well, see `solve_partial`. Not together with rho.
      loss: "square", (x - y)^2, or "kl", x log(x / y) - x + y for x >= 0, y > 0.
      init: where to start, since there are many local minima: "product" (a b^T),
        "eccentricity" (points in the order of their mean squared cost), "random" (in
        the order of a random combination of costs), a pair of numbers for the points
        ([n], [m]) to sort them by, or a plan [n, m].
      key: of `jax.random`, for init="random".
      starts: number of random starts, static; the result of least value is kept.
      anneal: [k] larger epsilons to solve for first, each from the last and roughly;
        decreasing, such as (1.0, 0.3, 0.1). Often ends in a better minimum.
      tolerance: [] L1 change of the plan by a step, relative to the mass, at which to
        stop; None: 1e-7 in float64, 1e-3 in float32.
      inner_tolerance: [] marginal error of the plan; None: 1e-10, or 2e-5.
      max_steps: [] limit of linear problems, for each epsilon; None: 1000.
      method: that of the linear problems, as in `solve`.

    Returns:
      The `QuadraticSolution`; look at `.converged`. `value` is F(P), exact to second
      order in the marginal error. The value, plan, potentials and projections can be
      differentiated with respect to x, y, a, b, linear, epsilon, alpha, rho and share,
      in forward and reverse mode: the stationary point is, not the loop.

    Raises:
      TypeError, ValueError: a wrong type, shape or name always; bad values (not
        finite, asymmetric, negative, unequal totals, alpha outside [0, 1]) if they are
        not traced. Asymmetric costs are refused: the gradient of Q would need both
        the matrix and its transpose. Derivatives in x and y are symmetric.

    Status: CONVERGED; MAX_STEPS or STALLED with the plan that was reached; a bad traced
      value gives INVALID_INPUT or MASS_MISMATCH, and NaN, as does NONFINITE, also where
      penalties are so small that the plan lost all mass. A derivative is NaN where its
      linear system is not solved.
    Cost: a linear problem a step, started from the potentials before it, and O(n m
      (n + m)) for its cost, or O(n m r) for squared distances and factors. Where these
      do not fit as a matrix, nothing of size [n, m] is formed. A derivative: some tens
      of products of about a step each. Changing numbers compiles nothing.
    Source: Peyre, Cuturi, Solomon (ICML 2016); Vayer et al. (ICML 2019), fused;
      Sejourne, Vialard, Peyre (NeurIPS 2021), unbalanced; Scetbon, Peyre, Cuturi
      (ICML 2022), low rank. docs/gromov.md.

    >>> import jax.numpy as jnp
    >>> x = jnp.abs(jnp.arange(4.0)[:, None] - jnp.arange(4.0)[None, :])
    >>> solution = solve_quadratic(x, x, epsilon=0.1, init="eccentricity")
    >>> bool(solution.converged)
    True
    """
    terms, good = make_terms(
        x,
        y,
        a,
        b,
        epsilon=epsilon,
        linear=linear,
        alpha=alpha,
        rho_a=rho_a,
        rho_b=rho_b,
        share=share,
        loss=loss,
    )
    control.refuse_divided_lanes("solve_quadratic", terms)
    dtype = terms.masses.dtype
    options = as_options(dtype, tolerance, inner_tolerance, max_steps)
    valid = _validity(terms, good)
    if starts != 1 and not (isinstance(init, str) and init == "random"):
        raise ValueError("starts is the number of random ones: it needs init='random'")
    held, unit = units.reduced(jax.lax.stop_gradient(terms))
    begin = starting.start(held, init, key, arguments.as_count("starts", starts))
    if anneal is not None:
        anneal = _epsilons(anneal, dtype) / unit
    given = jax.lax.stop_gradient((held, begin, anneal, options, valid))
    end = iterate(*given, method)
    return _attached(terms, end, options.inner_tolerance, registry.find(method)[0])


def _epsilons(anneal: Any, dtype: Any) -> jax.Array:
    """[k] the larger epsilons."""
    epsilons = as_float("anneal", anneal)
    if epsilons.ndim != 1:
        raise ValueError(f"anneal must have shape [k]; got {epsilons.shape}")
    if not isinstance(epsilons, Tracer) and not (np.asarray(epsilons) > 0).all():
        raise ValueError(f"anneal must be positive; got {epsilons}")
    return epsilons.astype(dtype)
