"""A training step over 64 problems of 128 x 128 inside `jit(value_and_grad)`."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxsns
from experiments import record

LANES, N, DIMENSION = 64, 128, 8


def _losses(share: float) -> dict[str, Any]:
    epsilon = share * 2.0 * DIMENSION  # the mean cost of normal points is 2 d

    def value(x, y):
        solve = lambda x, y: jaxsns.solve(jaxsns.PointCloud(x, y), epsilon=epsilon)
        return jnp.mean(jax.vmap(solve)(x, y).value)

    def moved(x, y):
        def one(x, y):
            solution = jaxsns.solve(jaxsns.PointCloud(x, y), epsilon=epsilon)
            return jnp.sum((solution.barycentric(y) - x) ** 2)

        return jnp.mean(jax.vmap(one)(x, y))

    def divergence(x, y):
        return jnp.mean(jaxsns.transport_loss(x, y, epsilon=epsilon))

    return {"value": value, "map (implicit solve)": moved, "divergence": divergence}


def measure() -> list[dict[str, Any]]:
    """Median times of the losses and their gradients, float32, default tolerance."""
    keys = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(k, (LANES, N, DIMENSION), jnp.float32) for k in keys)
    rows = []
    for share in (0.05, 0.005):
        for name, loss in _losses(share).items():
            forward, _, out = record.timed(jax.jit(loss), x, y)
            both = jax.jit(jax.value_and_grad(loss))
            seconds, first, (value, gradient) = record.timed(both, x, y)
            finite = bool(jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)))
            row = {
                "loss": name,
                "epsilon": f"{share} of the mean",
                "loss_ms": 1e3 * forward,
                "value_and_grad_ms": 1e3 * seconds,
                "first_call_s": first,
                "finite": finite and bool(jnp.isfinite(out)),
            }
            print(row, flush=True)
            rows.append(row)
    return rows
