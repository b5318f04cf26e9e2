"""Model: a small network, in plain JAX, learns to turn noise into two moons.

Trained on minibatches in float32 with the transport cost as loss: one jitted step,
with the derivative through the solver.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.quickstart.cloud import Path2D, divergence, draw_path

WIDTHS = (2, 64, 64, 2)
BATCH = 256
STEPS = 600
RATE = 1e-2
EPSILON = 0.02  # length squared


def make_network(key: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
    """Weights [in, out] and biases [out] of each layer."""
    layers = []
    for size_in, size_out in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        key, mine = jax.random.split(key)
        weights = jax.random.normal(mine, (size_in, size_out), jnp.float32)
        scaled = weights * (1 / size_in) ** 0.5
        layers.append((scaled, jnp.zeros(size_out, jnp.float32)))
    return layers


def apply(network: list[tuple[jax.Array, jax.Array]], noise: jax.Array) -> jax.Array:
    """Points [n, 2] made from noise [n, 2]."""
    x = noise
    for weights, bias in network[:-1]:
        x = jax.nn.gelu(x @ weights + bias)
    weights, bias = network[-1]
    return x @ weights + bias


def noise(key: jax.Array) -> jax.Array:
    """[BATCH, 2] what the network starts from."""
    return jax.random.normal(key, (BATCH, 2), jnp.float32)


def moons(key: jax.Array) -> jax.Array:
    """[BATCH, 2] points of two interleaved half circles, with a little noise."""
    where, blur = jax.random.split(key)
    angle = jnp.pi * jax.random.uniform(where, (BATCH,), jnp.float32)
    upper = jnp.arange(BATCH) % 2 == 0
    x = jnp.where(upper, jnp.cos(angle), 1 - jnp.cos(angle)) - 0.5
    y = jnp.where(upper, jnp.sin(angle), 0.5 - jnp.sin(angle)) - 0.25
    points = jnp.stack([x, y], axis=1)
    return points + 0.05 * jax.random.normal(blur, points.shape, jnp.float32)


def run() -> Path2D:
    """Train; print the loss at both ends."""
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))
    network = make_network(jax.random.key(0))

    def loss(network, key):
        start, target = jax.random.split(key)
        return divergence(apply(network, noise(start)), moons(target), EPSILON)

    @jax.jit
    def step(network, state, key):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, converged), slope = gradient(network, key)
        change, state = optimiser.update(slope, state)
        return optax.apply_updates(network, change), state, value, converged

    first, state = network, optimiser.init(network)
    losses, good = [], 0
    for key in jax.random.split(jax.random.key(1), STEPS):
        network, state, value, converged = step(network, state, key)
        losses.append(float(value))
        good += int(converged)
    pairs = jax.random.split(jax.random.key(3), (10, 2))
    floor = np.mean([divergence(moons(u), moons(v), EPSILON)[0] for u, v in pairs])
    start, end = np.mean(losses[:10]), np.mean(losses[-10:])
    print(f"  loss {start:.4f} -> {end:.4f} in {STEPS} steps (means of ten)")
    print(f"  two batches of the target itself differ by {floor:.4f}")
    print(f"  solves converged in {good} of {STEPS} steps, float32")
    fresh, target = jax.random.split(jax.random.key(2))
    samples = [apply(first, noise(fresh)), apply(network, noise(fresh)), moons(target)]
    return Path2D(*map(np.asarray, samples), np.asarray(losses))


def draw(result: Path2D, path: Path) -> None:
    """Draw fresh samples before and after training."""
    draw_path(result, path, "A network that turns noise into two moons", "training")
