"""Contenders that run in this process: `jaxsns` under vmap and in a loop, and a floor.

The floor is the cheapest thing that could solve a batch with one shared cost: a fixed
number of Sinkhorn steps, each two products with the kernel for all lanes at once.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments.benchmarks.batch_judge import worst_error
from experiments.benchmarks.batch_problems import Batch
from experiments.benchmarks.batch_rounds import Contender

MOST_PRODUCTS = 20_000  # steps, after which the floor counts as not reaching it


def _to_numpy(found: dict) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in found.items()}


def in_process(
    name: str,
    run: Callable[[], Any],
    read: Callable[[Any], dict[str, np.ndarray]] = _to_numpy,
    **facts: Any,
) -> Contender:
    """Warm contender that runs here; `read` makes f, g [lanes, ...] of its result."""
    last: list[Any] = [None]

    def once() -> float:
        start = time.perf_counter()
        last[0] = jax.block_until_ready(run())
        return time.perf_counter() - start

    first = once()
    facts = {"compile_s": first - once(), **facts}
    return Contender(name, once, lambda: read(last[0]), facts)


def _one(cost, a, b, epsilon, tolerance: float, method: str) -> dict:
    s = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=tolerance, method=method)
    return {"f": s.f, "g": s.g, "status": s.status, "newton": s.counts.newton_steps}


def _axes(batch: Batch) -> tuple[int | None, int, int, int]:
    return (None if batch.shared else 0, 0, 0, 0)


def vmapped(batch: Batch, tolerance: float, method: str = "auto") -> Contender:
    """`jit(vmap(solve))` on the whole batch."""
    arrays = [jnp.asarray(x) for x in (batch.cost, batch.a, batch.b, batch.epsilon)]
    one = lambda c, a, b, e: _one(c, a, b, e, tolerance, method)
    run = jax.jit(jax.vmap(one, in_axes=_axes(batch)))
    return in_process("jaxsns vmap", lambda: run(*arrays))


def looped(batch: Batch, tolerance: float, method: str = "auto") -> Contender:
    """`jit(solve)` lane by lane, waiting only at the end."""
    run = jax.jit(lambda c, a, b, e: _one(c, a, b, e, tolerance, method))
    costs = [batch.cost] * batch.lanes if batch.shared else batch.cost
    lanes = [
        [jnp.asarray(x) for x in lane]
        for lane in zip(costs, batch.a, batch.b, batch.epsilon, strict=True)
    ]

    def stack(found: list[dict]) -> dict[str, np.ndarray]:
        return {k: np.stack([np.asarray(x[k]) for x in found]) for k in found[0]}

    return in_process("jaxsns loop", lambda: [run(*x) for x in lanes], stack)


def differentiated(batch: Batch, tolerance: float) -> Contender:
    """Value and gradient of sum <weight, plan> with respect to the costs."""
    cost, a, b, epsilon, weight = (jnp.asarray(x) for x in batch.arrays.values())

    def one(cost, a, b, epsilon):
        s = jaxsns.solve(cost, a, b, epsilon=epsilon, tolerance=tolerance)
        return jnp.vdot(weight, s.plan()), {"f": s.f, "g": s.g, "status": s.status}

    def loss(cost):
        values, aux = jax.vmap(one)(cost, a, b, epsilon)
        return jnp.sum(values), aux

    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def run() -> dict:
        (value, aux), slope = gradient(cost)
        return {"value": value, "gradient": slope, **aux}

    return in_process("jaxsns vmap", run)


def _products(steps, kernel, a, b, epsilon, low):
    """f, g after `steps` of u = a / (K v), v = b / (K^T u); a [lanes, n]."""
    precision = jax.lax.Precision.HIGHEST

    def step(_, uv):
        u = a.T / jnp.matmul(kernel, uv[1], precision=precision)
        return u, b.T / jnp.matmul(kernel.T, u, precision=precision)

    u, v = jax.lax.fori_loop(0, steps, step, (jnp.ones_like(a.T), jnp.ones_like(b.T)))
    return {"f": (low + epsilon * jnp.log(u)).T, "g": (epsilon * jnp.log(v)).T}


def products(batch: Batch, tolerance: float) -> Contender:
    """Fixed-count product loop; the count is found beforehand and not timed."""
    cost, a, b = (jnp.asarray(x) for x in (batch.cost, batch.a, batch.b))
    epsilon = jnp.asarray(batch.epsilon[0])  # one for all lanes, as the kernel is
    low = jnp.min(cost, axis=1, keepdims=True)  # rows must not underflow

    @jax.jit
    def run(steps):
        return _products(steps, jnp.exp((low - cost) / epsilon), a, b, epsilon, low)

    def enough(steps: int) -> bool:
        found = run(steps)
        return worst_error(batch, *(np.asarray(found[k]) for k in "fg")) <= tolerance

    most = 1
    while not enough(most) and most < MOST_PRODUCTS:
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return in_process("products", lambda: run(most), setting=f"{most} steps")
