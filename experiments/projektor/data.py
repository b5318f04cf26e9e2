"""Three sources of digits, of which a part is revealed, and a target.

One source has the digits 0 to 4, one 5 to 9, one has all digits, but many wrong
labels. The target has more of the low digits than of the high ones.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

DATA = Path(__file__).parent.parent / "data" / "digits.npz"
SOURCES = ("digits 0-4", "digits 5-9", "wrong labels")
CLASSES = 10
SIZE = 240  # images of a source
PILOT = 80  # of them revealed
VALIDATION, TEST = 150, 300  # images of the target
LOW_SHARE = 0.7  # of digits 0 to 4 in the target
WRONG = 0.4  # of the labels of the third source


class Images(NamedTuple):
    """Labelled images."""

    features: np.ndarray  # [n, 64] pixels, 0 to 1
    labels: np.ndarray  # [n]


class Split(NamedTuple):
    """What one seed draws; the first PILOT images of a source are revealed."""

    sources: list[Images]
    validation: Images
    test: Images


def load(seed: int) -> Split:
    """Draw sources and target without a common image."""
    random = np.random.default_rng(seed)
    with np.load(DATA) as data:
        features, labels = data["images"].reshape(-1, 64) / 16, data["labels"]
    pools = [
        list(random.permutation(np.flatnonzero(keep)))
        for keep in (labels < 5, labels >= 5)
    ]

    def draw(low: int, high: int) -> Images:
        index = [pools[0].pop() for _ in range(low)]
        index = random.permutation(index + [pools[1].pop() for _ in range(high)])
        return Images(features[index], labels[index].astype(int))

    def target(size: int) -> Images:
        low = round(LOW_SHARE * size)
        return draw(low, size - low)

    first, second = draw(SIZE, 0), draw(0, SIZE)
    third = draw(SIZE // 2, SIZE - SIZE // 2)
    # A wrong label is any of the other nine.
    shift = random.integers(1, CLASSES, SIZE) * (random.random(SIZE) < WRONG)
    third = third._replace(labels=(third.labels + shift) % CLASSES)
    return Split([first, second, third], target(VALIDATION), target(TEST))


def revealed(split: Split) -> list[Images]:
    """What of each source may be looked at before a mixture is chosen."""
    return [Images(s.features[:PILOT], s.labels[:PILOT]) for s in split.sources]
