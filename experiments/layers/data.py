"""Digits as sets of points: a lit pixel is a point (column, row, intensity)."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import jaxsns

FILE = Path(__file__).parent.parent / "data" / "digits.npz"
CLASSES, DIMENSION, LEAST, TEST = 10, 3, 4, 397


class Sets(NamedTuple):
    """Padded sets; the mask says which points there are."""

    points: jax.Array  # [count, n, 3]
    mask: jax.Array  # [count, n] bool
    labels: jax.Array  # [count]


def load(seed: int = 0) -> tuple[Sets, Sets]:
    """1400 digits to learn from, and 397 others."""
    with np.load(FILE) as file:
        images, labels = file["images"], file["labels"].astype(np.int32)
    rows, columns = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    sets = []
    for image in images:
        lit = image >= LEAST
        where = np.stack([columns[lit], rows[lit]], axis=1) / 3.5 - 1
        sets.append(np.c_[where, image[lit] / 16].astype(np.float32))
    points, mask = jaxsns.ragged.pad(sets)
    order = np.random.default_rng(seed).permutation(len(images))
    pick = lambda i: Sets(points[i], mask[i], jax.numpy.asarray(labels[i]))
    return pick(order[TEST:]), pick(order[:TEST])
