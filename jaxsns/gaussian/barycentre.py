"""Bures-Wasserstein barycentre of covariances, with the derivative of the solution.

The fixed point of S <- S^-1/2 (sum_k w_k (S^1/2 X_k S^1/2)^1/2)^2 S^-1/2, that is of
S <- T S T with T = sum_k w_k T_k and T_k the optimal map of S to X_k. It is run on
factors, S = N N^T: T_k N is the root of X_k turned so that it is closest to N, and
the step is N <- sum_k w_k T_k N. That needs no inverse and keeps S semidefinite.

The derivative is that of the condition T = I, whatever led to S. Its linear system is
symmetric and positive; the Lyapunov operator of S is its inverse where all X_k are
equal, which makes that a preconditioner whose quality the condition of S leaves alone.
Source: Alvarez-Esteban, del Barrio, Cuesta-Albertos and Matran, J. Math. Anal. Appl.
441 (2016), theorem 4.2; implicit function theorem.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.gaussian import covariances, riccati
from jaxsns.gaussian.matrix_sqrt import clipped_root, symmetric_part
from jaxsns.linear.conjugate_gradient import conjugate_gradient
from jaxsns.linear.powers import half_exponent, power_of_two, shifted
from jaxsns.numerics import machine_epsilon, matmul
from jaxsns.problem.inputs import require_number
from jaxsns.recording.summary import one_line
from jaxsns.solution import require_converged
from jaxsns.status import Status, code


class GaussianBarycentre(NamedTuple):
    """What `barycentre` returns."""

    matrix: jax.Array  # [d, d] covariance
    residual: jax.Array  # [] see `barycentre`
    steps: jax.Array  # [] int32
    status: jax.Array  # [] int32, a `jaxsns.Status`

    @property
    def converged(self) -> jax.Array:
        """[] bool: the residual is at most the tolerance."""
        return self.status == code(Status.CONVERGED)

    @property
    def error(self) -> jax.Array:
        """[] the residual, under the name that other results have for it."""
        return self.residual

    def raise_if_failed(self) -> "GaussianBarycentre":
        """Return self if all of a batch converged, else raise; outside `jit` only."""
        require_converged(self.status, self.residual)
        return self

    def __repr__(self) -> str:
        """One line: size, dtype, status, residual and steps."""
        d = self.matrix.shape[-1]
        sizes = f"{d} x {d}"
        return one_line(
            "GaussianBarycentre", sizes, self.status, self.steps, residual=self.residual
        )


class _State(NamedTuple):
    factor: jax.Array  # [d, d] N
    residual: jax.Array
    step: jax.Array


def _mean_map(covs: jax.Array, weights: jax.Array, matrix: jax.Array, factors: Any):
    """[d, d] sum_k w_k T_k, the identity at the barycentre."""
    maps = jax.vmap(riccati.solution, in_axes=(None, 0, 0))(matrix, covs, factors)
    return jnp.sum(weights[:, None, None] * maps, axis=0)


@jax.custom_jvp
def _attach(covs: jax.Array, weights: jax.Array, matrix: jax.Array) -> jax.Array:
    """[d, d] the matrix unchanged, with the derivative of the barycentre."""
    return matrix


@_attach.defjvp
def _attach_jvp(primals, tangents):
    covs, weights, _ = primals
    # The attached matrix, not the raw one: higher derivatives need it.
    matrix = _attach(*primals)
    factors = jax.vmap(riccati.align, in_axes=(None, 0))(matrix, covs)
    _, rhs = jax.jvp(
        lambda x, w: _mean_map(x, w, matrix, factors), (covs, weights), tangents[:2]
    )

    def product(change: jax.Array) -> jax.Array:
        of_matrix = lambda m: _mean_map(covs, weights, m, factors)
        return -jax.jvp(of_matrix, (matrix,), (change,))[1]

    def solve(_, b: jax.Array) -> jax.Array:
        unit = power_of_two(b)  # linear in b, which may have any size
        end = conjugate_gradient(
            product,
            b / unit,
            lambda c: matmul(matrix, c) + matmul(c, matrix),
            10 * machine_epsilon(b.dtype),
            10 * b.size,
        )
        left = jnp.linalg.norm(b / unit - product(end.x))
        small = left <= machine_epsilon(b.dtype) ** 0.5 * jnp.linalg.norm(b / unit)
        return jnp.where(end.converged | small, end.x * unit, jnp.nan)

    change = control.custom_linear_solve(product, rhs, solve, symmetric=True)
    return matrix, change


@jax.custom_jvp
def _attach_in_units(covs, weights, matrix, unit: jax.Array) -> jax.Array:
    """[d, d] barycentre of covs, 2^unit times a matrix in units of 2^unit.

    It is homogeneous: its derivative in covs has no unit.
    """
    return shifted(_attach(shifted(covs, -unit), weights, matrix), unit)


@_attach_in_units.defjvp
def _attach_in_units_jvp(primals, tangents):
    covs, weights, matrix, unit = primals
    points = shifted(covs, -unit), weights
    changes = tangents[0], shifted(tangents[1], unit)
    at_unit = lambda covs, weights: _attach(covs, weights, matrix)
    return _attach_in_units(*primals), jax.jvp(at_unit, points, changes)[1]


@jax.jit
def _run(
    covs: jax.Array, weights: jax.Array, tolerance: jax.Array, max_steps: jax.Array
) -> _State:
    """Iterate from the arithmetic mean until a step is short; no derivative."""
    roots = clipped_root(covs)

    def update(s: _State) -> _State:
        def turned(root: jax.Array) -> jax.Array:
            w, _, z = riccati.singular(matmul(s.factor.T, root))
            return matmul(matmul(root, z), w.T)

        factor = jnp.sum(weights[:, None, None] * jax.vmap(turned)(roots), axis=0)
        size = jnp.linalg.norm(factor)
        residual = jnp.linalg.norm(factor - s.factor) / jnp.where(size > 0, size, 1)
        return _State(factor, residual, s.step + 1)

    def running(s: _State) -> jax.Array:
        # Not `residual > tolerance`: it starts infinite, and NaN must end the loop.
        open_ = (s.residual > tolerance) & ~jnp.isnan(s.residual)
        return open_ & (s.step < max_steps)

    start = clipped_root(jnp.sum(weights[:, None, None] * covs, axis=0))
    infinite = jnp.asarray(jnp.inf, covs.dtype)
    first = _State(start, infinite, jnp.asarray(0, jnp.int32))
    return control.while_loop(running, update, first)


def _number(name: str, value: Any, dtype: Any, least: float) -> jax.Array:
    require_number(name, value)
    number = jnp.asarray(value)
    if number.shape != () or (dtype == jnp.int32) != jnp.issubdtype(
        number.dtype, jnp.integer
    ):
        kind = "an integer" if dtype == jnp.int32 else "a real number"
        raise TypeError(
            f"{name} must be {kind}, a scalar; got {number.dtype} {number.shape}"
        )
    if not isinstance(number, Tracer) and not (least <= number < jnp.inf):
        raise ValueError(f"{name} must be at least {least:g}, finite; got {number}")
    return number.astype(dtype)


def barycentre(
    covs: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    metric: ArrayLike | None = None,
    tolerance: ArrayLike | None = None,
    max_steps: ArrayLike = 500,
) -> GaussianBarycentre:
    """Covariance S that minimises sum_k w_k bures(S, X_k).

    Args:
      covs: [K, d, d] covariances X_k; at least one positive definite with a positive
        weight makes S unique and positive definite.
      weights: [K] >= 0, divided by their total; equal if None.
      metric: [d, d] or None, see `jaxsns.gaussian`.
      tolerance: [] > 0, bound for the residual; 1e-12, in float32 2e-6, if None.
      max_steps: [] integer, most steps of the fixed point. Both are data: other
        values do not compile again.

    Returns:
      `GaussianBarycentre`. `residual` is the Bures length of the last step over
      (tr S)^1/2; the error left is about residual * r / (1 - r) with r the rate of
      the iteration, well below 1/2 unless the X_k hardly overlap. `matrix` is
      differentiable in covs, weights and metric, to any order, by the implicit
      function theorem: exact at a converged S only, NaN where S is singular.

    Status: CONVERGED; MAX_STEPS (`matrix` is the last iterate); NONFINITE (overflow)
    and, only under tracing, INVALID_INPUT, both with a NaN matrix.
    Raises: TypeError, ValueError as in `jaxsns.gaussian`; weights that are negative,
    not finite or all zero.
    Cost: K singular value decompositions a step, K + 1 eigendecompositions before; a
    derivative K more decompositions and O(K d^3) a step of conjugate gradients.
    """
    given = covariances.enter(covs=covs, weights=weights, metric=metric)
    matrices, shares, inner = given
    dtype, count = matrices.dtype, matrices.shape[0]
    if tolerance is None:
        tolerance = 1e-12 if jnp.finfo(dtype).bits >= 64 else 2e-6
    least = float(jnp.finfo(dtype).tiny)
    limit = _number("tolerance", tolerance, dtype, least)
    steps = _number("max_steps", max_steps, jnp.int32, 1)
    if shares is None:
        shares = jnp.full((count,), 1 / count, dtype)
    if not isinstance(shares, Tracer):
        host = np.asarray(shares)
        if not (np.all(host >= 0) and host.sum() > 0):
            raise ValueError(
                f"weights must be >= 0 with a positive total; got {host.min():g} as "
                f"the least and {host.sum():g} as the total"
            )
    good = jnp.all(shares >= 0) & (jnp.sum(shares) > 0)
    good &= jnp.all(jnp.isfinite(matrices)) & jnp.all(jnp.isfinite(shares))
    good &= (limit > 0) & (limit < jnp.inf) & (steps >= 0)
    if inner is not None:
        good &= jnp.all(jnp.isfinite(inner))
    shares = shares / jnp.sum(shares)
    factor = None
    if inner is not None:
        factor, matrices = jax.vmap(covariances.whiten, (None, 0), (None, 0))(
            inner, matrices
        )
    # In units of the largest entry no square overflows, or vanishes and looks small.
    unit = 2 * half_exponent(matrices)
    scaled = jax.lax.stop_gradient((shifted(matrices, -unit), shares))
    end = jax.lax.stop_gradient(_run(*scaled, limit, steps))
    matrix = matmul(end.factor, end.factor.T)
    matrix = _attach_in_units(matrices, shares, matrix, unit)
    matrix = covariances.colour(factor, symmetric_part(matrix))
    finite = jnp.all(jnp.isfinite(matrix)) & ~jnp.isnan(end.residual)
    fine = jnp.where(
        end.residual <= limit, code(Status.CONVERGED), code(Status.MAX_STEPS)
    )
    status = jnp.where(finite, fine, code(Status.NONFINITE))
    status = jnp.where(good, status, code(Status.INVALID_INPUT))
    usable = good & finite
    return GaussianBarycentre(
        jnp.where(usable, matrix, jnp.nan), end.residual, end.step, status
    )
