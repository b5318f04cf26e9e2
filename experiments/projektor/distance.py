"""Distance of a mixture of sources from the target, and its calibrated gradient.

The cost of two labelled images is the squared distance of the images plus the
transport distance of their classes (Alvarez-Melis and Fusi, OTDD, 2020). The distance
is the debiased entropic one, so that a mixture has distance zero from itself.
Calibrated gradient: Kang et al., "Performance Scaling via Optimal Transport"
(NeurIPS 2023).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments.projektor.data import Images

LABEL_EPSILON = 0.05  # of the mean squared distance of all images
EPSILON = 0.02  # of the mean cost
TOLERANCE = 1e-9


class Setting(NamedTuple):
    """Costs between the revealed images of all sources and the target."""

    cross: jax.Array  # [n, m] costs, sources to target
    own: jax.Array  # [n, n] costs among the sources
    base: jax.Array  # [] half the transport cost of the target to itself
    member: jax.Array  # [sources, n] 1 / n_i where an image is of source i
    epsilon: jax.Array  # [] in units of cost


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(1)[:, None] + (y**2).sum(1)[None, :]
    return np.maximum(squares - 2 * x @ y.T, 0)


def classes_of(sets: Sequence[Images]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Images of each class of each set, and the number of the class of each image.

    A label of one source need not mean what it means elsewhere: each source has its
    own classes.
    """
    clouds, numbers = [], []
    for images in sets:
        own, inverse = np.unique(images.labels, return_inverse=True)
        numbers.append(len(clouds) + inverse)
        clouds += [images.features[images.labels == label] for label in own]
    return clouds, numbers


@jax.jit
def _divergences(x, y, a, b, epsilon):
    def one(x, y, a, b):
        found = jaxsns.sinkhorn_divergence(x, y, a, b, epsilon=epsilon)
        return found.value, found.converged

    return jax.vmap(one)(x, y, a, b)


def class_distances(clouds: Sequence[np.ndarray], epsilon: float) -> np.ndarray:
    """[c, c] debiased distances between classes, all pairs in one batch."""
    longest = max(len(x) for x in clouds)
    # Few lengths, so that the next seed compiles nothing.
    points, mask = jaxsns.ragged.pad(clouds, longest + -longest % 16)
    mass = jaxsns.ragged.masses(mask)
    i, j = np.triu_indices(len(clouds), 1)
    found, converged = _divergences(points[i], points[j], mass[i], mass[j], epsilon)
    if not converged.all():
        raise RuntimeError(f"{int((~converged).sum())} class distances failed")
    out = np.zeros((len(clouds), len(clouds)))
    out[i, j] = out[j, i] = np.asarray(found)
    return out


def make_setting(sources: Sequence[Images], target: Images) -> Setting:
    """Costs with labels."""
    sets = [*sources, target]
    clouds, numbers = classes_of(sets)
    features = [images.features for images in sets]
    x, y = np.concatenate(features[:-1]), features[-1]
    of_x, of_y = np.concatenate(numbers[:-1]), numbers[-1]
    mean = _squared(x, y).mean()
    between = class_distances(clouds, LABEL_EPSILON * mean)

    def cost(u, v, of_u, of_v):
        return _squared(u, v) + between[np.ix_(of_u, of_v)]

    cross = cost(x, y, of_x, of_y)
    sizes = [len(images.labels) for images in sources]
    member = np.repeat(np.eye(len(sizes)) / np.array(sizes)[:, None], sizes, axis=1)
    epsilon = EPSILON * cross.mean()
    uniform = np.full(len(y), 1 / len(y))
    own = _self_distance(cost(y, y, of_y, of_y), uniform, epsilon).raise_if_failed()
    parts = cross, cost(x, x, of_x, of_x), own.value / 2, member, epsilon
    return Setting(*map(jnp.asarray, parts))


def weights(setting: Setting, p: jax.Array) -> jax.Array:
    """[n] mass of each image when source i has the share p[i]."""
    return p @ setting.member


def _self_distance(cost, mass, epsilon) -> jaxsns.Solution:
    options = {"epsilon": epsilon, "tolerance": TOLERANCE}
    return jaxsns.solve(cost, mass, mass, method="symmetric", **options)


def distance(setting: Setting, p: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Distance of the mixture p from the target.

    Returns:
      ([] distance, [n] its derivative in the mass of each image up to a constant,
      [] bool: all solves converged). The derivative is what the potentials are.
    """
    a = weights(setting, p)
    ab = jaxsns.solve(setting.cross, a, epsilon=setting.epsilon, tolerance=TOLERANCE)
    aa = _self_distance(setting.own, a, setting.epsilon)
    # d OT(a, a) / 2 is half of both potentials, which are equal.
    potential = ab.f - (aa.f + aa.g) / 2
    good = ab.converged & aa.converged
    return ab.value - aa.value / 2 - setting.base, potential, good


def calibrate(slope: jax.Array, p: jax.Array) -> jax.Array:
    """[sources] change of a function if one share grows and the others make room.

    slope: its derivatives in p as if shares were free, up to a common constant. The
    others shrink in proportion, so that the shares still sum to one.
    """
    return (slope - jnp.dot(p, slope)) / (1 - p)


@jax.jit
def evaluate(setting: Setting, p: jax.Array):
    """([] distance, [sources] calibrated gradient, [] bool: all solves converged).

    The gradient is the mean potential of the images of source i less that of all
    other images, weighted as they are in the mixture; a constant added to the
    potentials cancels. It costs no solve. It asks for shares between 0 and 1.
    """
    value, potential, good = distance(setting, p)
    return value, calibrate(setting.member @ potential, p), good
