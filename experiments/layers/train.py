"""One training loop for all models: cross-entropy, Adam, one jitted step."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.layers.data import Sets

BATCH, EPOCHS, RATE = 64, 12, 1e-2


def train(
    logits: Callable[..., jax.Array],
    parameters: Any,
    train: Sets,
    test: Sets,
    seed: int,
) -> dict[str, Any]:
    """Train; accuracy on the test set, median seconds a step, steps of NaN loss."""
    steps = len(train.labels) // BATCH * EPOCHS
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(parameters: Any, batch: Sets) -> jax.Array:
        scores = logits(parameters, batch.points, batch.mask)
        losses = optax.losses.softmax_cross_entropy_with_integer_labels
        return jnp.mean(losses(scores, batch.labels))

    @jax.jit
    def step(parameters: Any, state: Any, batch: Sets):
        value, gradient = jax.value_and_grad(loss)(parameters, batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(parameters, updates), state, value

    state, seconds, failed = optimiser.init(parameters), [], 0
    random = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        order = random.permutation(len(train.labels))
        for first in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            batch = jax.tree.map(lambda x, rows=rows: x[rows], train)
            start = time.perf_counter()
            parameters, state, value = step(parameters, state, batch)
            failed += bool(np.isnan(value.block_until_ready()))
            seconds.append(time.perf_counter() - start)
    scores = jax.jit(logits)(parameters, test.points, test.mask)
    accuracy = float(jnp.mean(jnp.argmax(scores, axis=1) == test.labels))
    return {
        "accuracy": accuracy,
        "step_ms": 1e3 * float(np.median(seconds)),
        "first_step_s": seconds[0],
        "failed": failed,
    }
