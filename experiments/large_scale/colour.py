"""Colour transfer between two photographs at full size, every pixel transported.

Pixels of the same colour are one atom with their number as mass, which changes
nothing. Photographs: coffee (Rachel Michetti, CC0) and rocket (SpaceX, public domain),
which come with scikit-image.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import jaxsns
from experiments.large_scale.judge import true_error

matplotlib.use("Agg")
import matplotlib.pyplot as plt

EPSILON, TOLERANCE = 1e-3, 1e-3
PICTURE = Path(__file__).parent / "colour.png"


def photographs() -> tuple[np.ndarray, np.ndarray]:
    """Source and target, [height, width, 3] of bytes."""
    from skimage import data  # only this script needs it

    return np.asarray(data.coffee()), np.asarray(data.rocket())


def atoms(picture: np.ndarray):
    """Colours [k, 3] in [0, 1], their shares, and which one each pixel has."""
    pixels = picture.reshape(-1, 3)
    colours, place, number = np.unique(
        pixels, axis=0, return_inverse=True, return_counts=True
    )
    return colours / 255.0, number / number.sum(), place.reshape(-1)


def main() -> dict:
    """Solve, draw, and return what was measured."""
    source, target = photographs()
    (x, a, place), (y, b, _) = atoms(source), atoms(target)
    factor = 1 / float(max(np.ptp(np.concatenate([x, y]), axis=0)) ** 2 * 3)
    cloud = jaxsns.PointCloud(
        jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), streamed=True
    ).scaled(jnp.asarray(factor, jnp.float32))
    a, b = jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)
    a, b = a / a.sum(), b / b.sum()

    @jax.jit
    def solve(cloud):
        solution = jaxsns.solve(cloud, a, b, epsilon=EPSILON, tolerance=TOLERANCE)
        return solution, solution.barycentric(cloud.y)

    compiled = solve.lower(cloud).compile()
    start = time.perf_counter()
    solution, colours = jax.block_until_ready(compiled(cloud))
    seconds = time.perf_counter() - start
    error = true_error(
        cloud.x, cloud.y, solution.f, solution.g, EPSILON, a, b, float(cloud.factor)
    )
    moved = np.clip(np.asarray(colours)[place].reshape(source.shape), 0, 1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4))
    titles = "source", "target", "source in the colours of the target"
    for axis, picture, title in zip(axes, (source, target, moved), titles, strict=True):
        axis.imshow(picture)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    plt.close(figure)
    return {
        "pixels": [source.size // 3, target.size // 3],
        "colours": [len(x), len(y)],
        "epsilon": EPSILON,
        "tolerance": TOLERANCE,
        "status": jaxsns.Status(int(solution.status)).name,
        "error": error,
        "seconds": seconds,
        "passes": int(solution.counts.passes),
    }


if __name__ == "__main__":
    print(main())
