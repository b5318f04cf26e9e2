"""Many small matrices made doubly stochastic by a fixed number of normalisations.

The iterates are diag(u) K diag(v) of one kernel K, so a step keeps two vectors and no
matrix. Problems stand on the last axis, where they share instructions. A block of them
at a time is projected, and projected again in reverse mode: what is kept between is
the input alone.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.linear.mapping import in_chunks
from jaxsns.numerics import smallest_normal
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float

# [D61]
OFFSET = 1e-6  # of the sums, as in the published kernels
# [D61]
MARGIN = 1e3  # of the least entry that is kept, over the root of the smallest normal
# [D61]
ENTRIES_ON_CPU, ENTRIES_ELSEWHERE = 1 << 13, 1 << 21  # of a block of matrices


def _rescaled(scale: jax.Array, sums: jax.Array, offset: jax.Array) -> jax.Array:
    """Scalings after lines of sums `scale * sums` were normalised."""
    total = scale * sums + offset
    # A line of zeros stays one.
    return scale / jnp.where(total > 0, total, 1)


def _block(logits: jax.Array, offset: jax.Array, steps: int) -> jax.Array:
    """[k, n, n] projections: rows and then columns, `steps` times."""
    x = jnp.moveaxis(logits, 0, -1)  # [n, n, k]
    top = jax.lax.stop_gradient(jnp.max(x, axis=1, keepdims=True))
    kernel = jnp.exp(x - top)
    # Derivatives have squares of inverses, which must not overflow.
    least = MARGIN * smallest_normal(kernel.dtype) ** 0.5
    kernel = jnp.where(kernel < least, 0, kernel)
    kernel = kernel / jnp.sum(kernel, axis=1, keepdims=True) + offset

    def rows(u: jax.Array, v: jax.Array) -> jax.Array:
        return _rescaled(u, jnp.sum(kernel * v[None, :], axis=1), offset)

    def columns(u: jax.Array, v: jax.Array) -> jax.Array:
        return _rescaled(v, jnp.sum(kernel * u[:, None], axis=0), offset)

    def step(scalings, _):
        u, v = scalings
        u = rows(u, v)
        return (u, columns(u, v)), None

    one = jnp.ones_like(kernel[0])
    start = one, columns(one, one)
    (u, v), _ = control.scan(step, start, length=steps - 1)
    return jnp.moveaxis(u[:, None] * kernel * v[None, :], -1, 0)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _projected(logits: jax.Array, offset: jax.Array, steps: int, exact: str):
    n = logits.shape[-1]
    wide = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32

    @jax.checkpoint
    def some(x: jax.Array) -> jax.Array:
        y = x.astype(wide)
        y = y if exact == "columns" else y.mT
        y = _block(y, offset.astype(wide), steps)
        return (y if exact == "columns" else y.mT).astype(x.dtype)

    def blocks(entries: int):
        return lambda x: in_chunks(some, x, max(entries // n**2, 1))

    flat = logits.reshape(-1, n, n)
    out = control.platform_dependent(
        flat, cpu=blocks(ENTRIES_ON_CPU), default=blocks(ENTRIES_ELSEWHERE)
    )
    return out.reshape(logits.shape)


@hints.answered
def sinkhorn_projection(
    logits: ArrayLike,
    steps: int = 20,
    *,
    exact: str = "columns",
    offset: ArrayLike = OFFSET,
) -> jax.Array:
    """Doubly stochastic matrices of logits, as hyper-connections use them.

    exact="columns" is what the published kernels compute: a softmax of each row, plus
    the offset; then the columns over their sums plus the offset; then `steps - 1` times
    the rows and the columns. The last division is that of the columns. exact="rows"
    exchanges the roles. With offset=0 it is the paper's equation, T_r(T_c(M)) from
    M = exp(logits), `steps` times.

    Args:
      logits: [..., n, n] numbers; -inf makes an entry 0, or about the offset. n is
        meant to be small, and the batch large.
      steps: number of normalisations of each side, at least 1; static.
      exact: "columns" or "rows", the side that is normalised last. Its sums are 1, less
        about the offset. Those of the other side come nearer to 1 with `steps`.
      offset: [] >= 0, added to the softmax and to each sum. With 0, logits more than 36
        below the largest of their row count as -inf in float32 (340 in float64).

    Returns:
      [..., n, n] in the dtype of the logits, computed in float32, or in float64 for
      float64. Forward and reverse mode, any order: derivatives are those of the
      steps. NaN where a row has no finite logit (a column, for exact="rows").

    Raises:
      TypeError, ValueError: a wrong type, shape or name always; an offset that is
        negative or not finite if it is not traced. A traced one gives NaN.

    Cost: O(steps n^2) time a matrix. Reverse mode makes the steps a second time; its
    memory is that of a few inputs and of one block of matrices.
    Source: Xie et al., "mHC: Manifold-constrained hyper-connections", arXiv 2512.24880,
    equation 9. For other marginals, or exact derivatives of the limit: `solve`.

    >>> import jax.numpy as jnp
    >>> mix = sinkhorn_projection(jnp.zeros((8, 4, 4), jnp.bfloat16))
    >>> mix.shape, str(mix.dtype), float(mix[0, 0, 0])
    ((8, 4, 4), 'bfloat16', 0.25)
    """
    numbers = as_float("logits", logits)
    if numbers.ndim < 2 or numbers.shape[-1] != numbers.shape[-2] or numbers.size == 0:
        raise ValueError(
            f"logits must have shape [..., n, n], not empty; got {numbers.shape}"
        )
    given = jnp.asarray(logits)
    # What is narrower than float32 is read in its own dtype, and blocks are widened.
    x = given if jnp.issubdtype(given.dtype, jnp.floating) else numbers
    steps = arguments.as_count("steps", steps)
    if exact not in ("rows", "columns"):
        raise ValueError(f"exact must be 'rows' or 'columns'; got {exact!r}")
    offset = arguments.as_scalar("offset", offset, numbers.dtype)
    fine = arguments.holds(
        lambda xp, v: xp.isfinite(v) & (v >= 0),
        lambda: f"offset must be finite and >= 0; got {offset}",
        offset,
    )
    return _projected(x, arguments.nan_unless(fine, offset), steps, exact)
