"""Synthetic covariances; a classifier: BiMap, normalisation, LogEig, linear.

SPDNet (Huang and Van Gool, 2017) with one hidden layer, in plain JAX.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.gbwbn import layers

CHANNELS, HIDDEN, CLASSES = 12, 8, 4
TRAIN, TEST, BATCH = 240, 600, 40
STEPS, RATE = 140, 2e-2
RIDGE = 1e-6  # of the mean variance, added to a covariance of few samples
FLOOR = 1e-6  # added to eigenvalues before the logarithm
WIDE_FLOOR = 0.1  # the same, in the variants that say so; the mean variance is 1
VARIANTS = (
    "none",
    "none, floor",
    "log-Euclidean",
    "log-Euclidean, floor",
    "BW",
    "GBW",
    "BW, root",
    "GBW, root",
)


def make_data(seed: int, samples: int) -> dict[str, np.ndarray]:
    """Covariances of `samples` draws each from one of four Gaussians.

    Classes differ by about 30 % in the variance of random directions, on channels
    whose standard deviations span a factor 10. Every trial has its own gain of all
    channels (a factor e^0.3) and of each (e^0.1).
    """
    random = np.random.default_rng(seed)
    width = np.geomspace(1, 0.1, CHANNELS)
    factors = []
    for _ in range(CLASSES):
        x = random.normal(size=(CHANNELS, CHANNELS))
        values, vectors = np.linalg.eigh((x + x.T) / np.sqrt(8 * CHANNELS))
        factors.append(width[:, None] * ((vectors * np.exp(0.5 * values)) @ vectors.T))
    data = {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        label = np.arange(count) % CLASSES
        z = random.normal(size=(count, CHANNELS, samples))
        gain = 0.3 * random.normal(size=(count, 1, 1))
        gain = gain + 0.1 * random.normal(size=(count, CHANNELS, 1))
        x = np.exp(gain) * (np.stack(factors)[label] @ z)
        x = x @ np.swapaxes(x, 1, 2) / samples
        size = np.trace(x, axis1=1, axis2=2).mean() / CHANNELS
        order = random.permutation(count)
        data[part] = (x / size + RIDGE * np.eye(CHANNELS))[order]
        data[part + "_label"] = label[order]
    return data


def make_parameters(key: jax.Array) -> dict[str, Any]:
    """Free numbers of all variants; each uses what it needs."""
    return {
        "map": jax.random.normal(key, (CHANNELS, HIDDEN)),
        "bias": jnp.zeros(HIDDEN),
        "scale": jnp.zeros(()),
        "metric": jnp.zeros((HIDDEN, HIDDEN)),
        "weights": jnp.zeros((HIDDEN, HIDDEN, CLASSES)),
        "offset": jnp.zeros(CLASSES),
    }


def make_statistics(variant: str) -> layers.Statistics:
    """Running statistics before the first batch."""
    size = 0.0 if "log-Euclidean" in variant else 1.0
    return layers.Statistics(size * jnp.eye(HIDDEN), jnp.ones(()))


def apply(variant: str, parameters, running: layers.Statistics, x, train: bool):
    """Scores [n, classes] of covariances [n, channels, channels], new statistics."""
    basis = jnp.linalg.qr(parameters["map"])[0]
    x = basis.T @ x @ basis
    wide = WIDE_FLOOR if "floor" in variant else FLOOR
    floor = wide * jnp.eye(HIDDEN)[None]
    bias, scale = parameters["bias"], jnp.exp(parameters["scale"])
    if "log-Euclidean" in variant:
        logs, running = layers.log_euclidean(x + floor, bias, scale, running, train)
    else:
        if "BW" in variant:
            factor = None
            if "GBW" in variant:
                free = parameters["metric"]
                factor = jnp.tril(free, -1) + jnp.diag(jnp.exp(jnp.diag(free)))
            x, running = layers.bures(
                x, bias, scale, running, train,
                metric_factor=factor, root="root" in variant,
            )  # fmt: skip
        logs = layers.logm(x + floor)
    scores = jnp.einsum("nij,ijc->nc", logs, parameters["weights"])
    return scores + parameters["offset"][None], running


def fit(variant: str, steps: int, data: dict[str, jax.Array], seed: jax.Array):
    """Train; loss of every step [steps], and accuracy on the test data."""
    first, order = jax.random.split(jax.random.key(seed))
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    parameters = make_parameters(first)

    def loss_of(parameters, running, x, label):
        scores, running = apply(variant, parameters, running, x, train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(scores, label)
        return jnp.mean(loss), running

    def step(carry, key):
        parameters, running, state = carry
        chosen = jax.random.choice(key, len(data["train"]), (BATCH,), replace=False)
        (loss, running), slope = jax.value_and_grad(loss_of, has_aux=True)(
            parameters, running, data["train"][chosen], data["train_label"][chosen]
        )
        change, state = optimiser.update(slope, state)
        return (optax.apply_updates(parameters, change), running, state), loss

    carry = parameters, make_statistics(variant), optimiser.init(parameters)
    (parameters, running, _), losses = jax.lax.scan(
        step, carry, jax.random.split(order, steps)
    )
    scores, _ = apply(variant, parameters, running, data["test"], train=False)
    right = jnp.argmax(scores, axis=1) == data["test_label"]
    return losses, jnp.mean(right)
