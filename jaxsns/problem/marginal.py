"""What is asked of one marginal r of the plan: equality with a, or closeness to it.

    equality: r = a          KL: rho_i (r_i log(r_i / a_i) - r_i + a_i) is paid

In the dual both are a concave function of the potential f_i: a_i f_i, or
rho_i a_i (1 - exp(-f_i / rho_i)), whose derivative is the mass that is wanted at f.
rho_i = infinity is equality [D29]. Source: Chizat, Peyre, Schmitzer, Vialard, "Scaling
algorithms for unbalanced optimal transport problems" (2018).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import safe_log, smallest_normal


def _ratio(z: jax.Array) -> jax.Array:
    """(1 - exp(-z)) / z, smooth through 0 in all derivatives that are taken here."""
    small = jnp.abs(z) < 1e-2
    other = jnp.where(small, 1.0, z)
    # Powers of a stand-in for infinity overflow, and 0 times that is NaN in reverse.
    z = jnp.where(small, z, 0)
    series = 1 + z * (-1 / 2 + z * (1 / 6 + z * (-1 / 24 + z * (1 / 120 - z / 720))))
    return jnp.where(small, series, -jnp.expm1(-other) / other)


def target_mass(
    mass: jax.Array, rho: jax.Array | None, potential: jax.Array
) -> jax.Array:
    """[n] mass that is asked for at a potential; 0 where there is no mass."""
    if rho is None:
        return mass
    real = mass > 0
    f = jnp.where(real, potential, 0)
    return jnp.where(real, mass * jnp.exp(-f / rho), 0)


def dual_value(mass: jax.Array, rho: jax.Array | None, potential: jax.Array):
    """[] contribution to the dual, in cost times mass."""
    f = jnp.where(mass > 0, potential, 0)
    if rho is None:
        return jnp.sum(mass * f)
    return jnp.sum(mass * f * _ratio(f / rho))


def penalty(mass: jax.Array, rho: jax.Array | None, sums: jax.Array) -> jax.Array:
    """[] what the primal pays for sums [n]; equality is not paid for."""
    if rho is None:
        return jnp.zeros((), mass.dtype)
    real = mass > 0
    some = real & (sums > 0)
    # Of sums near the least number the quotient may be flushed to 0.
    share = jnp.where(some, sums, 1) / jnp.where(some, mass, 1)
    log = jnp.log(jnp.maximum(share, smallest_normal(mass.dtype)))
    divergence = sums * log - sums + mass
    soft = real & ~jnp.isinf(rho)
    return jnp.sum(jnp.where(soft, jnp.where(soft, rho, 1) * divergence, 0))


def stiffness(wanted: jax.Array, rho: jax.Array | None, epsilon: jax.Array):
    """[n] by how much less is wanted for a potential larger by epsilon."""
    return jnp.zeros_like(wanted) if rho is None else wanted * (epsilon / rho)


class MarginalConstraint(NamedTuple):
    """The same on a kernel, for changes x of the potential in units of epsilon."""

    mass: jax.Array  # [n] wanted at x = 0
    log: jax.Array  # [n] its logarithm, -inf where there is none
    kappa: jax.Array | None  # [n] epsilon / rho

    @property
    def real(self) -> jax.Array:
        """[n] bool: atoms that have mass."""
        return self.log > -jnp.inf

    @property
    def tau(self) -> jax.Array | float:
        """[n] rho / (rho + epsilon)."""
        return 1.0 if self.kappa is None else 1 / (1 + self.kappa)

    def at(self, x: jax.Array) -> jax.Array:
        """[n] mass that is wanted."""
        if self.kappa is None:
            return self.mass
        # An atom without mass may stand at x = -inf, and 0 * inf is NaN.
        return jnp.exp(self.log - self.kappa * jnp.where(self.real, x, 0))

    def surplus(self, x: jax.Array, sums: jax.Array) -> jax.Array:
        """[n] log of the mass that is wanted at x over given sums; 0 without mass.

        Infinite where sums have vanished: the caller limits its step.
        """
        log = self.log
        if self.kappa is not None:
            log = log - self.kappa * jnp.where(self.real, x, 0)
        log_sums = jnp.log(jnp.where(self.real, sums, 1))
        return jnp.where(self.real, log, 0) - log_sums

    def stiffness(self, x: jax.Array) -> jax.Array:
        """[n] by how much less is wanted for a larger x."""
        if self.kappa is None:
            return jnp.zeros_like(self.mass)
        return self.kappa * self.at(x)

    def rounding(self, x: jax.Array) -> jax.Array:
        """[] rounding of the mass wanted at x, in mass and machine epsilons."""
        if self.kappa is None:
            return jnp.zeros((), x.dtype)
        x = jnp.where(self.real, x, 0)
        exponent = jnp.where(self.real, jnp.abs(self.log), 0) + self.kappa * jnp.abs(x)
        return jnp.sum(self.at(x) * exponent)

    def fit(self, log_sums: jax.Array) -> jax.Array:
        """[n] x at which exp(x) times given sums is what is wanted."""
        # Without mass sums may be zero as well, and -inf - -inf is NaN.
        return (self.log - jnp.where(self.real, log_sums, 0)) * self.tau

    def gain(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """[] what the dual gains over epsilon by these terms, in mass."""
        step = jnp.where(self.real, new - old, 0)
        if self.kappa is None:
            return jnp.sum(self.mass * step)
        return jnp.sum(self.at(old) * step * _ratio(self.kappa * step))

    def fitted_gain(self, old: jax.Array, new: jax.Array) -> jax.Array:
        """[] the same and what the plan's total takes, where sums are as wanted."""
        step = jnp.where(self.real, new - old, 0)
        if self.kappa is None:
            return jnp.sum(self.mass * step)
        more = step * _ratio(self.kappa * step) * (1 + self.kappa)
        return jnp.sum(self.at(old) * more)


def constraint(
    mass: jax.Array, rho: jax.Array | None, potential: jax.Array, epsilon: jax.Array
) -> MarginalConstraint:
    """MarginalConstraint around a potential [n]."""
    log = safe_log(mass)
    if rho is None:
        return MarginalConstraint(mass, log, None)
    log = jnp.where(mass > 0, log - jnp.where(mass > 0, potential, 0) / rho, -jnp.inf)
    return MarginalConstraint(jnp.exp(log), log, epsilon / rho)


def fitted_potential(
    mass: jax.Array, rho: jax.Array | None, soft: jax.Array, epsilon: jax.Array
) -> jax.Array:
    """[n] best potential for soft minima of the costs: epsilon log a + soft, damped."""
    best = epsilon * safe_log(mass) + soft
    return best if rho is None else best / (1 + epsilon / rho)


def _total(target: MarginalConstraint, x: jax.Array):
    """[] log of the mass that is wanted at x, and minus its slope."""
    if target.kappa is None:
        return jax.scipy.special.logsumexp(target.log), jnp.zeros((), x.dtype)
    log = target.log - target.kappa * jnp.where(target.real, x, 0)
    slope = jnp.sum(jax.nn.softmax(log) * target.kappa)
    return jax.scipy.special.logsumexp(log), slope


def translation(
    rows: MarginalConstraint, columns: MarginalConstraint, x: jax.Array, y: jax.Array
) -> jax.Array:
    """[] t for which (x + t, y - t), with the plan as it is, has the largest dual.

    That is where both sides want the same total. Of one rho a side it is known at once;
    of several Newton's method on its logarithm finds it. 0 where nothing is penalised.
    Source: Sejourne, Vialard, Peyre, "Faster unbalanced optimal transport: translation
    invariant Sinkhorn and 1-D Frank-Wolfe" (2022).
    """

    def newton(_, t: jax.Array) -> jax.Array:
        more, slope = _total(rows, x + t)
        less, other = _total(columns, y - t)
        slope = slope + other
        step = t + (more - less) / jnp.where(slope > 0, slope, 1)
        return jnp.where((slope > 0) & jnp.isfinite(step), step, t)

    return control.fori_loop(0, 4, newton, jnp.zeros((), x.dtype))
