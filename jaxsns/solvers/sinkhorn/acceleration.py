"""Which factor accelerates Sinkhorn's iteration best, read off a decay of errors.

A sweep contracts at rho close to the solution. Two ways reach the same better rate:
over-relaxation by a factor omega, and momentum (Polyak's heavy ball of 1964) on the
log scalings x of the rows with columns exact, x + (1 + q)^2 (S(x) - x) + q^2 (x -
x_before), which contracts at q = (1 - s) / (1 + s) with s^2 = 1 - rho.
"""

import jax
import jax.numpy as jnp

from jaxsns.numerics import machine_epsilon

TELLING = 1.001  # a decay above the limit of the factor by this says something [D12]
NEAR_ONE = 64  # machine epsilons below 1: largest contraction that is believed [D12]


def best_omega(omega: jax.Array, decay: jax.Array) -> jax.Array:
    """[...] optimal factor for the contraction that a decay per sweep reveals.

    Sinkhorn contracts at rho; with factor w the error decays at lam, where
    (lam + w - 1)^2 = w^2 rho lam as long as lam > w - 1 (Young, 1954). At or below
    w - 1 the factor is at least the optimum, and nothing can be read off.
    """
    rho = (decay + omega - 1) ** 2 / (omega**2 * decay)
    limit = 1 - NEAR_ONE * machine_epsilon(decay.dtype)
    new = 2 / (1 + jnp.sqrt(1 - jnp.clip(rho, 0, limit)))
    telling = jnp.isfinite(decay) & (decay > TELLING * (omega - 1)) & (decay < 1)
    return jnp.where(telling, new, omega)


def best_rate(rate: jax.Array, decay: jax.Array) -> jax.Array:
    """[...] best q, by the decay of errors per sweep that another one had.

    Where the latter is too low the slowest mode decays at a rate lam > q, and (1 +
    q)^2 (1 - rho) = (1 - lam) (1 - q^2 / lam). At or below q nothing can be read off.
    """
    telling = (decay < 1) & (decay > TELLING * rate)
    safe = jnp.where(telling, decay, 1)
    s = jnp.sqrt((1 - safe) * (1 - rate**2 / safe)) / (1 + rate)
    return jnp.where(telling, (1 - s) / (1 + s), rate)
