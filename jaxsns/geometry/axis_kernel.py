"""Softmax-weighted sums along one axis, at any epsilon mostly by products of matrices.

A stage turns logarithms l [n, r] (r lines beside one another) into

    out_i = log sum_j exp(l_j - c_ij)          c [m, n]: costs of the axis over epsilon

line by line, and holds the weights S_ij = exp(l_j - c_ij - out_i), which sum to one
over j. n m r exponentials would do it. Instead axes are cut into tiles, and in each
pair of them c is split into a part of i, a part of j and a rest,

    c_ij = alpha_i + beta_j + d_ij,      S = sum over tiles of  w_out exp(-d) w_in,

exponentials of tiles beside lines and of d alone. With the largest l_j - beta_j of a
tile and line taken out, this is exact if the spread of d is within the range of the
dtype: a j whose weight underflows is dominated by that largest one for every i of the
tile. For squared distances d is a product of distances to the tiles' middles: its
spread falls with the square of the number of tiles. Where it is too large all the same
(very small epsilon, costs with kinks), the exponentials are computed, n m r of them.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.numerics import matmul


def number_of_tiles(dtype: jnp.dtype, kinked: bool = False) -> int:
    """TiledCost of an axis: squared distances then fit down to 1e-4 of their maximum.

    Where costs have a kink spreads fall with the number of tiles only, not with its
    square; |x - y| fits down to 1e-4 in float64 and 4e-4 in float32 (two axes) [D22].
    """
    wide = jnp.finfo(dtype).bits >= 64
    return (8 if wide else 16) if kinked else (4 if wide else 9)


def largest_spread(dtype: jnp.dtype) -> float:
    """Spread of d that a tile may have.

    Sums of numbers up to exp of it come up halfway, times those that are multiplied,
    and must not overflow: up to 7e4 in float32, 1e27 in float64 and lines of 256 [D22].
    """
    return 640.0 if jnp.finfo(dtype).bits >= 64 else 68.0


def negligible(dtype: jnp.dtype) -> float:
    """A weight exp(-this) below the largest of its tile and line is dropped.

    For some i it may weigh exp(spread) times more: this is the largest spread and the
    logarithm of what rounding keeps, 1 / u.
    """
    return 680.0 if jnp.finfo(dtype).bits >= 64 else 85.0


class TiledCost(NamedTuple):
    """Costs of one axis over epsilon, cut into I x J pairs of tiles and split."""

    cost: jax.Array  # [m, n] c
    alpha: jax.Array  # [I, J, p] part of i, of p in its tile
    beta: jax.Array  # [I, J, q] part of j
    core: jax.Array  # [I, J, p, q] exp(-d)
    safe: jax.Array  # [2] bool: the spread of d, and twice it, is within the range


class AxisKernel(NamedTuple):
    """The weights S of all lines, in two forms; `safe` tells which one holds."""

    tiles: TiledCost
    w_in: jax.Array  # [I, J, q, r]
    w_out: jax.Array  # [I, J, p, r]
    log_in: jax.Array  # [n, r] l
    log_out: jax.Array  # [m, r] out


def _widths(count: int, most: int) -> tuple[int, int]:
    """Number of tiles of an axis and the width of each; the last may be padded."""
    width = math.ceil(count / most)
    return math.ceil(count / width), width


def _padded(x: jax.Array, count: int, axis: int, **how) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, count - x.shape[axis])
    return jnp.pad(x, widths, **how)


def _blocks(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[m, n] as pairs of tiles [I, J, p, q], the shape that is given."""
    I, J, p, q = shape
    x = _padded(_padded(x, I * p, 0, mode="edge"), J * q, 1, mode="edge")
    return jnp.swapaxes(x.reshape(I, p, J, q), 1, 2)


def tile(cost: jax.Array, number: int) -> TiledCost:
    """Cut and split the costs [m, n] of an axis, in units of epsilon. O(n m)."""
    (I, p), (J, q) = (_widths(count, number) for count in cost.shape)
    c = _blocks(cost, (I, J, p, q))
    alpha = c[:, :, :, q // 2]
    beta = c[:, :, p // 2, :] - c[:, :, p // 2, q // 2][:, :, None]
    d = c - alpha[:, :, :, None] - beta[:, :, None, :]
    low = jax.lax.stop_gradient(jnp.min(d, axis=(2, 3)))
    high = jax.lax.stop_gradient(jnp.max(d, axis=(2, 3)))
    middle = (low + high) / 2
    spread = jnp.max(high - low)
    safe = jnp.stack([power * spread <= largest_spread(cost.dtype) for power in (1, 2)])
    core = jnp.exp(jnp.where(safe[0], middle[:, :, None, None] - d, 0))
    return TiledCost(cost, alpha + middle[:, :, None], beta, core, safe)


def _tiled(x: jax.Array, shape: tuple[int, ...], fill: float = 0) -> jax.Array:
    """[n, r] as tiles [J, q, r], the shape that is given."""
    J, q = shape
    return _padded(x, J * q, 0, constant_values=fill).reshape(J, q, -1)


def _entering(tiles: TiledCost, log: jax.Array):
    """w_in, and the logarithms [I, J, p, r] of w_out and of sums, before scaling."""
    x = _tiled(log, tiles.core.shape[1::2], -jnp.inf)[None] - tiles.beta[..., None]
    top = jax.lax.stop_gradient(jnp.max(x, axis=2, keepdims=True))
    x = x - top
    w_in = jnp.where(x < -negligible(log.dtype), 0, jnp.exp(x))
    return w_in, top - tiles.alpha[..., None], jnp.log(matmul(tiles.core, w_in))


def _leaving(scale: jax.Array, sums: jax.Array, count: int) -> jax.Array:
    """[m, r] logarithms of the sums over all tiles."""
    out = jax.nn.logsumexp(scale + sums, axis=1)
    return out.reshape(-1, out.shape[-1])[:count]


def _exact_log(tiles: TiledCost, log: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(log[None] - tiles.cost[:, :, None], axis=1)


def log_sums(tiles: TiledCost, log: jax.Array) -> jax.Array:
    """[m, r] out of logarithms l [n, r]."""

    def fast(tiles: TiledCost, log: jax.Array):
        _, scale, sums = _entering(tiles, log)
        return _leaving(scale, sums, tiles.cost.shape[0])

    return control.cond(tiles.safe[0], fast, jax.checkpoint(_exact_log), tiles, log)


def axis_kernel(tiles: TiledCost, log: jax.Array) -> AxisKernel:
    """Weights of logarithms l [n, r]: 2 (n + m) r arrays times the number of tiles."""
    m = tiles.cost.shape[0]

    def fast(tiles: TiledCost, log: jax.Array):
        w_in, scale, sums = _entering(tiles, log)
        out = _leaving(scale, sums, m)
        w_out = jnp.exp(scale - _tiled(out, tiles.core.shape[::2], jnp.inf)[:, None])
        return w_in, w_out, out

    def exact(tiles: TiledCost, log: jax.Array):
        (I, J, p, q), r = tiles.core.shape, log.shape[1]
        nothing = lambda size: jnp.zeros((I, J, size, r), log.dtype)
        return nothing(q), nothing(p), jax.checkpoint(_exact_log)(tiles, log)

    w_in, w_out, out = control.cond(tiles.safe[0], fast, exact, tiles, log)
    return AxisKernel(tiles, w_in, w_out, log, out)


def _weights(s: AxisKernel, factor: jax.Array | None, power: int) -> jax.Array:
    """[m, n, r] what `apply` sums, each an exponential; never stored, XLA fuses it."""
    log = s.log_in[None] - s.tiles.cost[:, :, None] - s.log_out[:, None]
    weights = jnp.exp(power * log)
    return weights if factor is None else weights * factor[:, :, None]


def _parts(s: AxisKernel, factor: jax.Array | None, power: int):
    core, w_in, w_out = (x**power for x in (s.tiles.core, s.w_in, s.w_out))
    return core if factor is None else core * _blocks(factor, core.shape), w_in, w_out


def apply(
    s: AxisKernel, v: jax.Array, factor: jax.Array | None = None, power: int = 1
) -> jax.Array:
    """Sum over j of S_ij^power factor_ij v_j in each line: v [r, n] to [m, r].

    The axis comes last and leaves first, so that an array in C order passes through
    the stages of its axes, the last one first, without being moved in between.
    """

    def fast(s, v, factor):
        core, w_in, w_out = _parts(s, factor, power)
        x = _tiled(v.T, core.shape[1::2])[None] * w_in
        out = jnp.sum(w_out * matmul(core, x), axis=1)
        return out.reshape(-1, out.shape[-1])[: s.log_out.shape[0]]

    @jax.checkpoint
    def exact(s, v, factor):
        return jnp.sum(_weights(s, factor, power) * v.T[None], axis=1)

    return control.cond(s.tiles.safe[power - 1], fast, exact, s, v, factor)


def apply_transposed(
    s: AxisKernel, u: jax.Array, factor: jax.Array | None = None, power: int = 1
) -> jax.Array:
    """Sum over i of S_ij^power factor_ij u_i in each line: u [m, r] to [r, n]."""

    def fast(s, u, factor):
        core, w_in, w_out = _parts(s, factor, power)
        x = _tiled(u, core.shape[::2])[:, None] * w_out
        parts = w_in * matmul(jnp.swapaxes(core, 2, 3), x)
        # A sum by a product: fused with the transposition below, XLA's own takes three
        # times as long on a CPU.
        ones = jnp.ones((1, parts.shape[0]), u.dtype)
        out = matmul(ones, parts.reshape(parts.shape[0], -1))
        return out.reshape(-1, u.shape[1])[: s.log_in.shape[0]].T

    @jax.checkpoint
    def exact(s, u, factor):
        return jnp.sum(_weights(s, factor, power) * u[:, None], axis=0).T

    return control.cond(s.tiles.safe[power - 1], fast, exact, s, u, factor)
