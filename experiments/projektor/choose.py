"""Ways to choose the mixture, each with only the revealed images to look at."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.projektor import model
from experiments.projektor.data import PILOT, SIZE, Images, Split, revealed
from experiments.projektor.distance import Setting, evaluate, make_setting
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


def distances(setting: Setting, mixtures: np.ndarray) -> np.ndarray:
    """[k] distances of mixtures [k, sources]."""
    found = [evaluate(setting, jnp.asarray(p)) for p in mixtures]
    failed = sum(not good for _, _, good in found)
    if failed:
        raise RuntimeError(f"{failed} distances failed")
    return np.array([float(value) for value, _, _ in found])


def try_mixtures(split: Split, seed: int) -> Pilot:
    """Train on random mixtures of what is revealed, and measure their distances."""
    sources = revealed(split)
    setting = make_setting(sources, split.validation)
    random = np.random.default_rng([seed, 1])
    drawn = random.dirichlet(np.ones(len(sources)), TRIED)
    mixtures = np.stack([model.to_simplex(jnp.asarray(p)) for p in drawn])
    found = distances(setting, mixtures)
    accuracy = [
        [
            mean_accuracy(sources, p, size, split.validation, DRAWS, seed)
            for p in mixtures
        ]
        for size in SIZES
    ]
    return Pilot(setting, sources, mixtures, np.array(accuracy), found)


def fitted(pilot: Pilot, form: str) -> model.Scaling:
    """Fit a form of the scaling model to the pilots."""
    terms = jax.vmap(model.FORMS[form])
    rows = terms(jnp.asarray(pilot.mixtures), jnp.asarray(pilot.distances))
    return model.fit(rows, *pilot.accuracy, SIZES)


def predictions(pilot: Pilot, form: str, mixtures, found, size: int) -> np.ndarray:
    """[k] accuracies of mixtures with distances `found` [k]."""
    scaling, terms = fitted(pilot, form), jax.vmap(model.FORMS[form])
    rows = terms(jnp.asarray(mixtures), jnp.asarray(found))
    size = jnp.asarray(float(size))
    return np.asarray(jax.vmap(lambda row: model.predict(scaling, row, size))(rows))


def choices(split: Split, pilot: Pilot, seed: int) -> dict[str, Any]:
    """Name -> mixture. All but the first look at revealed and validation images."""
    count = len(pilot.sources)
    equal = jnp.full((count,), 1 / count)
    alone = [
        mean_accuracy(pilot.sources, p, SIZES[1], split.validation, 1, seed)
        for p in np.eye(count)
    ]
    look = functools.partial(evaluate, pilot.setting)

    def top(form: str) -> np.ndarray:
        scaling = fitted(pilot, form)
        slope = model.slope_of(scaling, model.FORMS[form], float(SIZE), look)
        return model.ascend(slope, equal)

    best = int(np.argmax(pilot.accuracy[1]))
    return {
        "equal shares": np.asarray(equal),
        "best source alone": np.eye(count)[int(np.argmax(alone))],
        "best of the tried": pilot.mixtures[best],
        "least distance": model.ascend(lambda p: -look(p)[1], equal),
        "shares alone": top("shares alone"),
        "projektor": top("projektor"),
    }


def gradient_error(setting: Setting, p: np.ndarray, step: float = 1e-4) -> float:
    """Largest difference of the calibrated gradient from re-weighted mixtures.

    Relative to the largest entry. Central differences: share i is moved, the others
    keep their proportions.
    """
    found = np.asarray(evaluate(setting, jnp.asarray(p))[1])
    along = (np.eye(p.size) - p[None, :]) / (1 - p)[:, None]
    up = distances(setting, p[None, :] + step * along)
    down = distances(setting, p[None, :] - step * along)
    wanted = (up - down) / (2 * step)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())
