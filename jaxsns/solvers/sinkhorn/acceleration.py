"""Sinkhorn's iteration with momentum: which, and what a decay says about it.

With x the log scalings of the rows and S(x) those after a sweep, columns exact, the
iteration is x + (1 + q)^2 (S(x) - x) + q^2 (x - x_before). Close to the solution the
eigenvalues of S are in [0, rho], and it contracts at the rate q per sweep if that is
(1 - s) / (1 + s) with s^2 = 1 - rho: Polyak's heavy ball, of 1964. A sweep alone is
q = 0. The rate is that of the best over-relaxation, without a logarithm and an
exponential of the columns.
"""

import jax
import jax.numpy as jnp


def best_rate(rate: jax.Array, decay: jax.Array) -> jax.Array:
    """[...] best q, by the decay of errors per sweep that another one had.

    Where the latter is too low the slowest mode decays at a rate lam > q, and (1 +
    q)^2 (1 - rho) = (1 - lam) (1 - q^2 / lam). At or below q nothing can be read off.
    """
    telling = (decay < 1) & (decay > 1.001 * rate)
    safe = jnp.where(telling, decay, 1)
    s = jnp.sqrt((1 - safe) * (1 - rate**2 / safe)) / (1 + rate)
    return jnp.where(telling, (1 - s) / (1 + s), rate)
