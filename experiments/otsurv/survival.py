"""What survival is trained and judged by: Cox's partial likelihood and the C-index."""

import jax
import jax.numpy as jnp
import numpy as np


def cox_loss(risk: jax.Array, time: jax.Array, event: jax.Array) -> jax.Array:
    """[] mean negative log partial likelihood (Breslow) of log hazards risk [k]."""
    at_risk = time[None, :] >= time[:, None]
    of_all = jax.scipy.special.logsumexp(
        jnp.where(at_risk, risk[None, :], -jnp.inf), axis=1
    )
    deaths = event.astype(risk.dtype)
    return jnp.sum(deaths * (of_all - risk)) / jnp.maximum(jnp.sum(deaths), 1)


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Harrell's C-index: how often, of two patients, the riskier one dies first.

    A pair counts if the earlier time is a death; equal risks count half.
    """
    counts = event[:, None] & (time[:, None] < time[None, :])
    higher = np.sign(risk[:, None] - risk[None, :])
    return float(np.mean((1 + higher[counts]) / 2))
