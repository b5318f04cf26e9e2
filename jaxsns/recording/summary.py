"""One line about a result: sizes, dtype and how it went, but no array."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.status import Status


def one_line(
    sizes: str, status: jax.Array, steps: jax.Array, **residual: jax.Array
) -> str:
    """Text after the name of a result of an iteration.

    Args:
      sizes: the shape of one result in words.
      status: [...] int32, with leading dimensions for a batch.
      steps: [...] int32.
      residual: [...] what was compared with the tolerance, by its name.
    """
    ((name, size),) = residual.items()
    head = f"({sizes}, {size.dtype}"
    if isinstance(status, Tracer):
        return head + ", traced)"
    if size.ndim > 0:
        names, number = np.unique(np.asarray(status), return_counts=True)
        pairs = zip(names, number, strict=True)
        found = ", ".join(f"{Status(int(s)).name}: {k}" for s, k in pairs)
        worst, most = float(jnp.max(size)), int(jnp.max(steps))
        return (
            f"{head}, batch={size.shape}, {found}, worst {name}={worst:.1e}, "
            f"at most {most} steps)"
        )
    return (
        f"{head}, {Status(int(status)).name}, {name}={float(size):.1e}, "
        f"{int(steps)} steps)"
    )
