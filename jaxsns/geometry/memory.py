"""Whether a cost matrix and what a solve keeps beside it fit into memory."""

import math
import os

import jax
import jax.numpy as jnp

COPIES = 4  # arrays of the size of the costs that a solve on a matrix holds [D26]
# [D26]
MOST = 1 << 30  # bytes for them at most: above it streamed solves are the faster ones
SHARE = 0.25  # of the memory of the device [D26]


def device_bytes() -> float:
    """Memory of the default device, in bytes; infinite if it cannot be told."""
    device = jax.local_devices()[0]
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return math.inf


def fits(n: int, m: int, dtype: jnp.dtype) -> bool:
    """Whether [n, m] costs are to be stored; known when compiled."""
    wanted = COPIES * n * m * jnp.dtype(dtype).itemsize
    return wanted <= min(MOST, SHARE * device_bytes())
