"""Batches of transport problems: many lanes of one shape, each with its own numbers.

Every maker takes a seed and returns a `Batch` in float64; `Batch.cast` changes it.
"""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Problems of one shape.

    Attributes:
      cost: [lanes, n, m], or [n, m] if all lanes share it, in any unit.
      a: [lanes, n] row masses.
      b: [lanes, m] column masses, with the same total in each lane.
      epsilon: [lanes] in units of cost.
      weight: [n, m] of the linear function of the plan that is differentiated.
    """

    cost: np.ndarray
    a: np.ndarray
    b: np.ndarray
    epsilon: np.ndarray
    weight: np.ndarray

    @property
    def lanes(self) -> int:
        """How many problems."""
        return len(self.a)

    @property
    def shared(self) -> bool:
        """Whether all lanes have one cost."""
        return self.cost.ndim == 2

    def cast(self, dtype: str) -> "Batch":
        """Give the same numbers in another precision."""
        return Batch(*(x.astype(dtype) for x in self.arrays.values()))

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """All fields by name; one object, so that a child process gets it once."""
        return {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}

    def first(self, lanes: int) -> "Batch":
        """Keep the first lanes only."""
        arrays = self.arrays
        kept = {k: arrays[k][:lanes] for k in ("a", "b", "epsilon")}
        cost = self.cost if self.shared else self.cost[:lanes]
        return dataclasses.replace(self, cost=cost, **kept)


def _uniform(lanes: int, n: int, total: float = 1.0) -> np.ndarray:
    return np.full((lanes, n), total / n)


def _random_masses(random: np.random.Generator, lanes: int, n: int) -> np.ndarray:
    mass = random.uniform(0.5, 1.5, size=(lanes, n))
    return mass / mass.sum(1, keepdims=True)


def _points(random: np.random.Generator, lanes: int, n: int, d: int) -> np.ndarray:
    """[lanes, n, n] squared distances of standard normal points."""
    x, y = random.normal(size=(2, lanes, n, d))
    products = np.einsum("lid,ljd->lij", x, y)
    squares = (x**2).sum(-1)[:, :, None] + (y**2).sum(-1)[:, None, :]
    return np.maximum(squares - 2 * products, 0)


def mixed_epsilon(lanes: int, n: int, seed: int) -> Batch:
    """Plane points; epsilon from 0.05 to 1 times the costs' standard deviation."""
    random = np.random.default_rng(seed)
    cost = _points(random, lanes, n, 2)
    share = random.permutation(np.geomspace(0.05, 1, lanes))
    return Batch(
        cost,
        _random_masses(random, lanes, n),
        _random_masses(random, lanes, n),
        share * cost.std((1, 2)),
        random.normal(size=(n, n)),
    )


def shared_cost(lanes: int, n: int, share: float, seed: int) -> Batch:
    """One cost of plane points, many pairs of masses; epsilon = share of its mean."""
    random = np.random.default_rng(seed)
    cost = _points(random, 1, n, 2)[0]
    return Batch(
        cost,
        _random_masses(random, lanes, n),
        _random_masses(random, lanes, n),
        np.full(lanes, share * cost.mean()),
        random.normal(size=(n, n)),
    )


def hyper_connections(lanes: int, n: int, seed: int) -> Batch:
    """Normal logits made doubly stochastic: epsilon 1, each mass 1, total n."""
    random = np.random.default_rng(seed)
    mass = _uniform(lanes, n, n)
    cost = random.normal(size=(lanes, n, n))
    return Batch(cost, mass, mass, np.ones(lanes), random.normal(size=(n, n)))


def gaussian(lanes: int, n: int, d: int, share: float, seed: int) -> Batch:
    """Normal points in d dimensions; epsilon = share of the mean cost of all lanes."""
    random = np.random.default_rng(seed)
    cost, mass = _points(random, lanes, n, d), _uniform(lanes, n)
    epsilon = np.full(lanes, share * cost.mean())
    return Batch(cost, mass, mass, epsilon, random.normal(size=(n, n)))


def detection(lanes: int, n: int, seed: int) -> Batch:
    """Matching as in DETR: boxes and classes of queries against those of objects.

    Half the L1 distance of boxes (centre, size, in [0, 1]), half one minus the
    probability of the right one of 20 classes, scaled to at most 1; epsilon 1e-3.
    """
    random = np.random.default_rng(seed)
    queries, objects = random.uniform(size=(2, lanes, n, 4))
    boxes = np.abs(queries[:, :, None] - objects[:, None]).mean(-1)
    logits = 2 * random.normal(size=(lanes, n, 20))
    chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    kind = random.integers(20, size=(lanes, n))
    cost = (
        boxes / 2
        + (1 - np.stack([p[:, k] for p, k in zip(chance, kind, strict=True)])) / 2
    )
    mass = _uniform(lanes, n)
    epsilon = np.full(lanes, 1e-3)
    return Batch(cost / cost.max(), mass, mass, epsilon, random.normal(size=(n, n)))
