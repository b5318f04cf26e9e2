"""Transport between Gaussian mixtures: plans between components, at Bures costs.

Only couplings that are mixtures themselves are compared. That leaves a discrete problem
between the components, whose costs are squared 2-Wasserstein distances of Gaussians.
Source: Delon and Desolneux, "A Wasserstein-type distance in the space of Gaussian
mixture models", SIAM J. Imaging Sci. 13 (2020).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control
from jaxsns.gaussian import covariances
from jaxsns.gaussian.barycentre import barycentre
from jaxsns.gaussian.bures import bures, geodesic, optimal_map
from jaxsns.geometry import Dense
from jaxsns.linear import lapack
from jaxsns.numerics import matmul, safe_log
from jaxsns.problem import arguments
from jaxsns.problem.checks import coarseness, equalised
from jaxsns.problem.inputs import as_float, same_totals
from jaxsns.solution import Solution
from jaxsns.solver import solve


class Mixture(NamedTuple):
    """Gaussian mixture of K components in d dimensions.

    Attributes:
      weights: [K] masses >= 0.
      means: [K, d], in unit u.
      covs: [K, d, d] covariances, in unit u^2.
    """

    weights: Any
    means: Any
    covs: Any


def _checked(name: str, mixture: Any) -> Mixture:
    """One dtype, right shapes; covariances that are not are NaN, or raise."""
    if not isinstance(mixture, tuple | list) or len(mixture) != 3:
        raise TypeError(
            f"{name} must be a Mixture(weights, means, covs); got "
            f"{type(mixture).__name__}"
        )
    w, m, s = (
        as_float(f"{part} of {name}", x)
        for part, x in zip(Mixture._fields, mixture, strict=True)
    )
    if m.ndim != 2 or m.size == 0 or w.shape != m.shape[:1]:
        raise ValueError(
            f"weights and means of {name} must have shapes [K] and [K, d], not empty; "
            f"got {w.shape} and {m.shape}"
        )
    if s.shape != (*m.shape, m.shape[1]):
        raise ValueError(
            f"covs of {name} must have shape {[*m.shape, m.shape[1]]}; got {s.shape}"
        )
    dtype = jnp.result_type(w.dtype, m.dtype, s.dtype)
    s = covariances.admit(f"covs of {name}", s.astype(dtype))
    return Mixture(w.astype(dtype), m.astype(dtype), s)


def _same_totals(mixtures: list[Mixture], coarse: list[float]) -> list[Mixture]:
    """Totals that differ by the rounding of coarse dtypes become the finest one's."""
    finest = min(range(len(coarse)), key=lambda k: coarse[k])
    total = jnp.sum(mixtures[finest].weights, keepdims=True)
    out = []
    for mixture, slack in zip(mixtures, coarse, strict=True):
        w = mixture.weights
        if slack > 0:
            w = equalised(w, total.astype(w.dtype), slack + coarse[finest])
        out.append(mixture._replace(weights=w))
    return out


def _pairs(function: Any, x: Any, y: Any) -> Any:
    """Apply a function of components to all pairs: [K, L, ...]."""
    return jax.vmap(lambda u: jax.vmap(lambda v: function(u, v))(y))(x)


@jax.jit
def _costs(x: Mixture, y: Mixture) -> jax.Array:
    """[K, L] squared distances of the components."""
    shifts = jnp.sum((x.means[:, None] - y.means[None]) ** 2, axis=-1)
    return shifts + _pairs(bures, x.covs, y.covs)


def _log_density(mean: jax.Array, cov: jax.Array, points: jax.Array) -> jax.Array:
    """[n] log density less its constant; points [n, d]."""
    factor = jnp.tril(lapack.cholesky(cov))
    z = jax.scipy.linalg.solve_triangular(
        factor, (points - mean[None, :]).T, lower=True
    )
    return -jnp.sum(z**2, axis=0) / 2 - jnp.sum(jnp.log(jnp.diagonal(factor)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixtureTransport:
    """Transport between two mixtures.

    Attributes:
      x: the first mixture, K components.
      y: the second, L components.
      solution: of the problem between components; see its status.
    """

    x: Mixture
    y: Mixture
    solution: Solution

    @property
    def converged(self) -> jax.Array:
        """[] bool: the plan between components converged."""
        return self.solution.converged

    @property
    def status(self) -> jax.Array:
        """[] int32, the `Status` of the plan between components."""
        return self.solution.status

    @property
    def error(self) -> jax.Array:
        """[] marginal error of the plan between components, relative."""
        return self.solution.error

    def raise_if_failed(self) -> "MixtureTransport":
        """Return self if the plan converged, else raise; outside `jit` only."""
        self.solution.raise_if_failed()
        return self

    @property
    def value(self) -> jax.Array:
        """[] <C, P>, squared distance of the mixtures times mass, without entropy."""
        return self.solution.transport_cost

    def plan(self) -> jax.Array:
        """[K, L] plan between components, in mass."""
        return self.solution.plan()

    def map(self, points: jax.Array) -> jax.Array:
        """[n, d] mean of where points [n, d] of the first mixture go.

        A point belongs to the components by their densities there, and each pair of
        components moves it by its optimal affine map. Covariances must be positive
        definite. K L maps of O(d^3).
        """
        points = jnp.asarray(points, self.x.means.dtype)
        plan = self.plan()
        mass = jnp.sum(plan, axis=1)
        share = plan / jnp.where(mass > 0, mass, 1)[:, None]
        logs = jax.vmap(_log_density, (0, 0, None))(self.x.means, self.x.covs, points)
        belongs = jax.nn.softmax(logs + safe_log(mass)[:, None], axis=0)  # [K, n]
        matrices = _pairs(optimal_map, self.x.covs, self.y.covs)  # [K, L, d, d]
        matrix = jnp.sum(share[:, :, None, None] * matrices, axis=1)
        target = matmul(share, self.y.means)
        one = lambda matrix, mean, target: target[None, :] + matmul(
            points - mean[None, :], matrix.T
        )
        moved = jax.vmap(one)(matrix, self.x.means, target)  # [K, n, d]
        return jnp.sum(belongs[:, :, None] * moved, axis=0)

    def interpolate(self, t: ArrayLike) -> Mixture:
        """Mixture of K L components at time t from 0 to 1: the geodesic.

        It is also the barycentre of the two mixtures with weights 1 - t and t.
        """
        t = arguments.as_scalar("t", t, self.x.means.dtype)
        means = (1 - t) * self.x.means[:, None] + t * self.y.means[None]
        covs = _pairs(lambda a, b: geodesic(a, b, t), self.x.covs, self.y.covs)
        d = means.shape[-1]
        return Mixture(
            self.plan().reshape(-1), means.reshape(-1, d), covs.reshape(-1, d, d)
        )


def mixture_transport(
    x: Mixture, y: Mixture, *, epsilon: ArrayLike | None = None, **options: Any
) -> MixtureTransport:
    """Transport between two Gaussian mixtures.

    Args:
      x: `Mixture` of K components, or a tuple (weights, means, covs).
      y: `Mixture` of L components in as many dimensions, of the same total.
      epsilon: [] regularisation > 0 of the plan between components, in units of squared
        length; None: 0.05 of the standard deviation of the costs. A small one, 1e-3 of
        that, gives the published distance.
      **options: rho_a, rho_b, tolerance, method, max_steps as in `solve`.

    Returns:
      The `MixtureTransport`, with plan, value, map and interpolation. Differentiable
      in weights, means and covariances, to any order.

    Raises:
      TypeError, ValueError: a wrong type or shape always; masses or covariances that
        are bad if they are not traced. Traced ones give NaN and a status.

    Cost: K L Bures distances of O(d^3), and a solve of K x L.
    """
    given = x, y
    x, y = _checked("x", x), _checked("y", y)
    if x.means.shape[1] != y.means.shape[1]:
        raise ValueError(
            f"x and y must have the same dimension; got means {x.means.shape} and "
            f"{y.means.shape}"
        )
    a, b = x.weights, y.weights
    coarse = coarseness(given[0][0]), coarseness(given[1][0])
    if max(coarse) > 0:
        given_rhos = {k: options.get(k) for k in ("rho_a", "rho_b")}
        rhos = [None if v is None else as_float(k, v) for k, v in given_rhos.items()]
        a, b = same_totals(a, b, coarse, rhos)
    solution = solve(Dense(_costs(x, y)), a, b, epsilon=epsilon, **options)
    return MixtureTransport(x, y, solution)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MixtureBarycentre:
    """What `mixture_barycentre` returns.

    Attributes:
      mixture: the barycentre.
      change: [] root mean square distance that the last step moved a component; how far
        from a fixed point it is.
      value: [] weighted sum of <C, P_k>, before the last step.
    """

    mixture: Mixture
    change: jax.Array
    value: jax.Array


def mixture_barycentre(
    mixtures: Sequence[Mixture],
    start: Mixture,
    *,
    weights: ArrayLike | None = None,
    epsilon: ArrayLike | None = None,
    steps: int = 20,
    **options: Any,
) -> MixtureBarycentre:
    """Barycentre of Gaussian mixtures, with a given number of components.

    A step solves the transport from the barycentre to each mixture, and replaces every
    component by the Gaussian barycentre of the components that it is joined with. The
    objective falls to a local minimum, which depends on the start. Of two mixtures
    `MixtureTransport.interpolate` gives the exact one.

    Args:
      mixtures: list of at least one `Mixture`, of equal totals.
      start: `Mixture` to start from; its weights stay.
      weights: [k] >= 0 of the mixtures, divided by their total; equal if None.
      epsilon: [] regularisation > 0 of the plans between components, in units of
        squared length; None: 0.05 of the standard deviation of the costs.
      steps: number of steps, static.
      **options: tolerance, method, max_steps as in `solve`.

    Returns:
      The `MixtureBarycentre`. Differentiable; derivatives are those of the steps.

    Raises:
      TypeError, ValueError: as `mixture_transport`.

    Cost: `steps` times one transport a mixture and one Gaussian barycentre a component.
    Source: Delon and Desolneux (2020); the alternation of Cuturi and Doucet (2014).
    """
    mixtures = [*mixtures]
    given = [_checked(f"mixtures[{k}]", x) for k, x in enumerate(mixtures)]
    if not given:
        raise ValueError("mixtures must have at least one; got none")
    checked = [_checked("start", start), *given]
    coarse = [coarseness(x[0]) for x in (start, *mixtures)]
    start, *given = _same_totals(checked, coarse)
    dtype = start.means.dtype
    if weights is None:
        shares = jnp.full((len(given),), 1 / len(given), dtype)
    else:
        shares = as_float("weights", weights).astype(dtype)
        if shares.shape != (len(given),):
            raise ValueError(
                f"weights must have shape [{len(given)}]; got {shares.shape}"
            )
        fine = arguments.holds(
            lambda xp, w: xp.all(w >= 0) & (xp.sum(w) > 0),
            lambda: f"weights must be >= 0 with a positive total; got {weights}",
            shares,
        )
        shares = arguments.nan_unless(fine, shares / jnp.sum(shares))
    covs = jnp.concatenate([x.covs for x in given])
    means = jnp.concatenate([x.means for x in given])

    def step(now: Mixture, _):
        out = [mixture_transport(now, x, epsilon=epsilon, **options) for x in given]
        joined = jnp.concatenate(
            [w * t.plan() for w, t in zip(shares, out, strict=True)], axis=1
        )
        mass = jnp.sum(joined, axis=1, keepdims=True)
        # A component without mass takes part in nothing: it becomes the mean of all.
        joined = jnp.where(mass > 0, joined / jnp.where(mass > 0, mass, 1), 1)
        joined = joined / jnp.sum(joined, axis=1, keepdims=True)
        new = Mixture(
            now.weights,
            matmul(joined, means),
            jax.vmap(lambda w: barycentre(covs, w).matrix)(joined),
        )
        moved = jnp.sum((new.means - now.means) ** 2, axis=1)
        moved = moved + jax.vmap(bures)(new.covs, now.covs)
        value = sum(w * t.value for w, t in zip(shares, out, strict=True))
        return new, (jnp.sqrt(jnp.mean(moved)), value)

    steps = arguments.as_count("steps", steps)
    end, (change, value) = control.scan(step, start, length=steps)
    return MixtureBarycentre(end, change[-1], value[-1])
