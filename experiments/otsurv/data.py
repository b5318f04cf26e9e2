"""Synthetic bags with survival times: long-tailed morphologies and patches of noise.

A bag stands for a slide, a patch for a piece of it. What makes a patient's risk is
how much there is of the two rarest morphologies, and what the patches of the second
most frequent one look like. The rest tells nothing.
"""

from typing import NamedTuple

import numpy as np

DIMENSION = 16
FREQUENCY = 1 / np.arange(1, 7) ** 1.5  # a long tail: 55 % to 4 % of what is not noise
NOISE = 0.3  # share of patches without any morphology
SIZES = 40, 120  # patches of a bag, least and most
LOOK = 1  # morphology whose appearance counts
TAIL = 2  # this many of the rarest count by their amount
CENSORED = 0.4  # rate of censoring over the median rate of death


class Bags(NamedTuple):
    """A cohort of k patients."""

    patches: list[np.ndarray]  # k arrays [n_i, DIMENSION], float32
    time: np.ndarray  # [k] until death or censoring
    event: np.ndarray  # [k] bool: death was seen
    hazard: np.ndarray  # [k] log hazard that made the times, for the best possible


def _standard(x: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / x.std()


def make_bags(count: int, seed: int) -> Bags:
    """Draw a cohort of `count` patients."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(len(FREQUENCY), DIMENSION))
    direction = random.normal(size=DIMENSION)
    direction *= 1.5 / np.linalg.norm(direction)
    concentration = 10 * FREQUENCY / FREQUENCY.sum()
    patches, tail, look = [], [], random.normal(size=count)
    for state in look:
        size = random.integers(SIZES[0], SIZES[1] + 1)
        mixture = random.dirichlet(concentration)
        kind = random.choice(len(FREQUENCY), size, p=mixture)
        points = centres[kind] + 0.7 * random.normal(size=(size, DIMENSION))
        points += np.where(kind == LOOK, state, 0)[:, None] * direction
        noise = random.random(size) < NOISE
        points[noise] = 1.2 * random.normal(size=(noise.sum(), DIMENSION))
        patches.append(points.astype(np.float32))
        rare = kind >= len(FREQUENCY) - TAIL
        tail.append(np.mean(rare[~noise]))
    hazard = _standard(np.asarray(tail)) + look
    death = random.exponential(np.exp(-hazard))
    censoring = random.exponential(np.median(np.exp(-hazard)) / CENSORED, count)
    return Bags(patches, np.minimum(death, censoring), death <= censoring, hazard)


def part(bags: Bags, chosen: slice) -> Bags:
    """Leave some of the patients."""
    return Bags(*(x[chosen] for x in bags))
