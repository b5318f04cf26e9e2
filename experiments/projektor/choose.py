"""Ways to choose the mixture, each with only the revealed images to look at."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.projektor import model
from experiments.projektor.data import PILOT, SIZE, Images, Split, revealed
from experiments.projektor.distance import (
    Setting,
    calibrated_gradient,
    distance,
    make_setting,
)
from experiments.projektor.learner import mean_accuracy

SIZES = (PILOT // 2, PILOT)  # images that the pilots train on
TRIED = 20  # mixtures that are trained on at these sizes
DRAWS = 5  # of images for each of them


class Pilot(NamedTuple):
    """Mixtures that were tried on revealed images."""

    setting: Setting
    sources: list[Images]
    mixtures: np.ndarray  # [k, sources]
    accuracy: np.ndarray  # [2, k] on the validation images, at both sizes
    distances: np.ndarray  # [k]


@jax.jit
def distances(setting: Setting, mixtures: jax.Array):
    """Distances [k] of mixtures [k, sources], and whether all solves converged."""
    return jax.vmap(lambda p: distance(setting, p))(mixtures)


def try_mixtures(split: Split, seed: int) -> Pilot:
    """Train on random mixtures of what is revealed, and measure their distances."""
    sources = revealed(split)
    setting = make_setting(sources, split.validation)
    random = np.random.default_rng([seed, 1])
    drawn = random.dirichlet(np.ones(len(sources)), TRIED)
    mixtures = np.stack([model.to_simplex(jnp.asarray(p)) for p in drawn])
    found, good = distances(setting, jnp.asarray(mixtures))
    if not good.all():
        raise RuntimeError(f"{int((~good).sum())} distances failed")
    accuracy = [
        [
            mean_accuracy(sources, p, size, split.validation, DRAWS, seed)
            for p in mixtures
        ]
        for size in SIZES
    ]
    return Pilot(setting, sources, mixtures, np.array(accuracy), np.asarray(found))


def fitted(pilot: Pilot, form: str) -> model.Scaling:
    """Fit a form of the scaling model to the pilots."""
    terms = jax.vmap(model.FORMS[form])
    rows = terms(jnp.asarray(pilot.mixtures), jnp.asarray(pilot.distances))
    return model.fit(rows, *pilot.accuracy, SIZES)


def predictions(pilot: Pilot, form: str, mixtures, found, size: int) -> np.ndarray:
    """[k] accuracies of mixtures with distances `found` [k]."""
    scaling, terms = fitted(pilot, form), jax.vmap(model.FORMS[form])
    rows, size = terms(mixtures, found), jnp.asarray(float(size))
    return np.asarray(jax.vmap(lambda row: model.predict(scaling, row, size))(rows))


@functools.partial(jax.jit, static_argnums=0)
def _up(form, setting, scaling, start, size):
    def score(p):
        row = model.FORMS[form](p, distance(setting, p)[0])
        return model.predict(scaling, row, size)

    return model.ascend(score, start)


@jax.jit
def _nearest(setting, start):
    return model.ascend(lambda p: -distance(setting, p)[0], start)


def choices(split: Split, pilot: Pilot, seed: int) -> dict[str, Any]:
    """Name -> mixture. All but the first look at revealed and validation images."""
    count = len(pilot.sources)
    equal = jnp.full((count,), 1 / count)
    size = jnp.asarray(float(SIZE))
    alone = [
        mean_accuracy(pilot.sources, p, SIZES[1], split.validation, 1, seed)
        for p in np.eye(count)
    ]
    paths = {
        "least distance": _nearest(pilot.setting, equal),
        **{
            form: _up(form, pilot.setting, fitted(pilot, form), equal, size)
            for form in ("shares alone", "projektor")
        },
    }
    best = int(np.argmax(pilot.accuracy[1]))
    return {
        "equal shares": np.asarray(equal),
        "best source alone": np.eye(count)[int(np.argmax(alone))],
        "best of the tried": pilot.mixtures[best],
        **{name: np.asarray(path[-1]) for name, path in paths.items()},
    }


def gradient_error(setting: Setting, p: jax.Array, step: float = 1e-4) -> float:
    """Largest difference of the calibrated gradient from re-weighted mixtures.

    Relative to the largest entry. Central differences: share i is moved, the others
    keep their proportions.
    """
    found = np.asarray(calibrated_gradient(setting, p))
    unit = jnp.eye(p.shape[0])
    along = (unit - p[None, :]) / (1 - p)[:, None]
    moved = jnp.concatenate([p[None, :] + step * along, p[None, :] - step * along])
    up, down = np.split(np.asarray(distances(setting, moved)[0]), 2)
    wanted = (up - down) / (2 * step)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
