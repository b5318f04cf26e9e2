"""What a streamed pass costs: against its exponentials, and against a stored matrix."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from jaxsns.geometry import Streamed


def _alternating(functions: dict, repeats: int = 7) -> dict[str, float]:
    """Median seconds of each, run in turn."""
    seconds: dict[str, list[float]] = {k: [] for k in functions}
    for f in functions.values():
        jax.block_until_ready(f())
    for _ in range(repeats):
        for k, f in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(f())
            seconds[k].append(time.perf_counter() - start)
    return {k: statistics.median(v) for k, v in seconds.items()}


def _cloud(n: int, d: int):
    random = np.random.default_rng(0)
    x, y = (jnp.asarray(random.normal(size=(n, d)), jnp.float32) for _ in range(2))
    return x, y, jnp.zeros(n, jnp.float32)


def exponentials(n: int = 20_000, d: int = 3) -> dict[str, float]:
    """Seconds of a streamed pass, and of its exponentials alone."""
    x, y, f = _cloud(n, d)
    geometry, epsilon = Streamed(x, y), jnp.asarray(1.0, jnp.float32)
    whole = jax.jit(lambda f: geometry.marginals(f, f, epsilon))
    size = geometry.block_size()
    block = jnp.asarray(np.random.default_rng(1).normal(size=(size, n)), jnp.float32)
    alone = jax.jit(lambda z: jnp.sum(jnp.exp(z)))
    blocks = -(-n // size)

    def many():
        for _ in range(blocks):
            out = jax.block_until_ready(alone(block))
        return out

    return _alternating({"streamed": lambda: whole(f), "exponentials": many})


def stored(n: int = 4_000, d: int = 3) -> dict[str, float]:
    """Seconds of a pass, streamed and on a stored matrix, and of whole solves."""
    x, y, f = _cloud(n, d)
    epsilon = jnp.asarray(0.3, jnp.float32)
    out = {}
    for name, streamed in (("streamed", True), ("stored", False)):
        geometry = jaxsns.PointCloud(x, y, streamed=streamed).formed()
        one = jax.jit(lambda f, g=geometry: g.marginals(f, f, epsilon))
        cloud = jaxsns.PointCloud(x, y, streamed=streamed)
        solve = jax.jit(lambda e, c=cloud: jaxsns.solve(c, epsilon=e, tolerance=1e-4).f)
        out[f"pass {name}"] = lambda one=one: one(f)
        out[f"solve {name}"] = lambda solve=solve: solve(epsilon)
    return _alternating(out)


def main() -> dict:
    """Both, as numbers."""
    return {"exponentials": exponentials(), "stored": stored()}


if __name__ == "__main__":
    print(main())
