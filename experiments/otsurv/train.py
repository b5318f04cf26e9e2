"""Train a variant on a cohort, judge it on held-out patients."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxsns
from experiments.otsurv import layer, model
from experiments.otsurv.data import SIZES, make_bags, part
from experiments.otsurv.survival import concordance, cox_loss

TRAINED, HELD_OUT = 240, 240  # patients
BATCH = 48
EPOCHS = 40
RATE, DECAY = 2e-3, 1e-2
OPTIMISER = optax.adamw(
    optax.cosine_decay_schedule(RATE, EPOCHS * TRAINED // BATCH), weight_decay=DECAY
)


def risks(pooling: str, parameters: model.Parameters, bags: tuple, share: jax.Array):
    """([k] log hazards, [k] bool) of padded bags, patches [k, N, d] and mask [k, N]."""
    one = functools.partial(model.risk, pooling, parameters, share=share)
    return jax.vmap(lambda patches, mask: one(patches, mask))(*bags)


@functools.partial(jax.jit, static_argnums=0)
def step(pooling: str, parameters, state, bags, times, event, share):
    """Do one step of AdamW on Cox's loss of a batch."""

    def loss(parameters):
        risk, converged = risks(pooling, parameters, bags, share)
        return cox_loss(risk, times, event), jnp.sum(converged)

    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, converged), slope = gradient(parameters)
    change, state = OPTIMISER.update(slope, state, parameters)
    return optax.apply_updates(parameters, change), state, value, converged


_predict = jax.jit(risks, static_argnums=0)


def fit(pooling: str, seed: int, epochs: int = EPOCHS) -> dict[str, Any]:
    """Train on one cohort; C-index of training and held-out patients."""
    cohort = make_bags(TRAINED + HELD_OUT, seed)
    trained, held_out = part(cohort, slice(TRAINED)), part(cohort, slice(TRAINED, None))
    patches, mask = jaxsns.ragged.pad(cohort.patches, SIZES[1])
    times = jnp.asarray(cohort.time, jnp.float32)
    event = jnp.asarray(cohort.event)
    random = np.random.default_rng(seed)
    every = np.concatenate(trained.patches)
    examples = jnp.asarray(random.choice(every, model.PROTOTYPES, replace=False))
    parameters = model.make_parameters(jax.random.key(seed), pooling, examples)
    state = OPTIMISER.init(parameters)
    start = time.perf_counter()
    losses, solved = [], 0
    share = jnp.float32(1)
    for epoch in range(epochs):
        share = jnp.float32(layer.ramp(epoch))
        for chosen in random.permutation(TRAINED).reshape(-1, BATCH):
            bags = patches[chosen], mask[chosen]
            parameters, state, loss, converged = step(
                pooling, parameters, state, bags, times[chosen], event[chosen], share
            )
            losses.append(float(loss))
            solved += int(converged)
    seconds = time.perf_counter() - start
    risk, converged = _predict(pooling, parameters, (patches, mask), share)
    risk = np.asarray(risk)
    return {
        "pooling": pooling,
        "seed": seed,
        "c_index": concordance(risk[TRAINED:], held_out.time, held_out.event),
        "c_index_training": concordance(risk[:TRAINED], trained.time, trained.event),
        "c_index_best": concordance(held_out.hazard, held_out.time, held_out.event),
        "deaths_seen": float(np.mean(cohort.event)),
        "parameters": model.size(parameters),
        "loss": np.reshape(losses, (epochs, -1)).mean(axis=1).tolist(),  # by epoch
        "unsolved": epochs * TRAINED - solved + int(np.sum(~np.asarray(converged))),
        "solves": epochs * TRAINED + len(risk),
        "seconds": seconds,
    }
