"""`solve_bijection`: halve both clouds together, match blocks, improve pairs.

Blocks are matched exactly. A sweep divides the pairs into blocks of its own and matches
these again: the cost never rises, and pairs that a cut had parted can meet.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns import control, hints
from jaxsns.bijection import blocks as halving
from jaxsns.bijection.blocks import Blocks
from jaxsns.bijection.solution import Bijection
from jaxsns.exact import solve_exact
from jaxsns.geometry import PointCloud, costs
from jaxsns.geometry.costs import CostFunction
from jaxsns.linear.powers import power_of_two
from jaxsns.problem import arguments
from jaxsns.problem.inputs import as_float, as_positive, require_positive
from jaxsns.status import Status, code

BLOCK = 256  # points that are matched exactly [D65]
SWEEPS = 60  # at most [D65]
TOLERANCE = 1e-3  # relative gain of three sweeps [D65]
MEMORY = 3  # sweeps whose gain is looked at: one of each kind of blocks [D65]


class _State(NamedTuple):
    permutation: jax.Array  # [n] int32
    values: jax.Array  # [MEMORY + 1] the last ones, latest first
    step: jax.Array  # [] int32


def _pairs(cost: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    """[n] costs of x_i and y_i."""
    return costs.pairs(cost, x[:, None], y[:, None])[:, 0]


def _matched(cost: Any, x: jax.Array, y: jax.Array, real: jax.Array) -> jax.Array:
    """[w] int32 place of y for each place of x in a block; as it is where that fails.

    real: [w] bool; places without a point are paired with their like.
    """
    matrix = costs.matrix(cost, x, y)
    # In a unit of their own: large ones would pass for forbidden pairs.
    matrix = matrix / power_of_two(matrix)
    own = jnp.diagonal(matrix)
    # Places without a point go to their like at no cost.
    alike = real[:, None] == real[None, :]
    matrix = jnp.where(alike, jnp.where(real[:, None], matrix, 0), jnp.inf)
    found = solve_exact(matrix).permutation
    taken = jnp.take_along_axis(matrix, jnp.maximum(found, 0)[:, None], axis=1)[:, 0]
    total = lambda v: jnp.sum(jnp.where(real, v, 0))
    better = jnp.all(found >= 0) & (total(taken) <= total(own))
    place = jnp.arange(found.shape[0], dtype=found.dtype)
    return jnp.where(better, found, place)


def _joined(cost: Any, x, y, rows: Blocks, columns: Blocks) -> jax.Array:
    """[n] int32 permutation that matches blocks of x with blocks of y."""

    def one(block):
        i, j, real = block
        return j[_matched(cost, x[i], y[j], real)]

    real = rows.real
    target = jax.lax.map(one, (rows.table, columns.table, real))
    n = x.shape[0]
    # Places without a point write beyond the end, where nothing is.
    place = jnp.where(real, rows.table, n)
    start = jnp.zeros((n,), jnp.int32)
    return start.at[place].set(target.astype(jnp.int32), mode="drop")


def _halved(x: jax.Array, y: jax.Array, levels: int, key: jax.Array):
    """Blocks of both clouds, halved together."""
    rows, columns = halving.whole(x.shape[0]), halving.whole(y.shape[0])
    for key_of in jax.random.split(key, levels):
        rows, columns = halving.halved_together(rows, columns, x, y, key_of)
    return rows, columns


def _cut(x, y, levels: int, s: _State, key: jax.Array) -> tuple[Blocks, Blocks]:
    """Blocks of pairs that are near by x, by y, or by the middle of both."""
    moved = y[s.permutation]
    share = jnp.asarray((0.0, 1.0, 0.5), x.dtype)[s.step % MEMORY]
    own = jax.random.fold_in(key, s.step)
    pairs = halving.cut_at_random(x + share * (moved - x), levels, own)
    return pairs, pairs._replace(table=s.permutation[pairs.table])


def _matched_in(cost: Any, x, y, blocks: tuple[Blocks, Blocks], s: _State) -> _State:
    """The state after a sweep over some blocks."""
    permutation = _joined(cost, x, y, *blocks)
    value = jnp.mean(_pairs(cost, x, y[permutation]))
    values = jnp.concatenate([value[None], s.values[:-1]])
    return _State(permutation, values, s.step + 1)


def _gain(values: jax.Array) -> jax.Array:
    """[] relative gain over what is remembered; infinite at first."""
    oldest, latest = values[-1], values[0]
    size = jnp.abs(oldest)
    gain = (oldest - latest) / jnp.where(size > 0, size, 1)
    return jnp.where(jnp.isinf(oldest), jnp.inf, gain)


@functools.partial(jax.jit, static_argnums=0)
def _run(block: int, cloud: PointCloud, tolerance, max_steps, key) -> _State:
    cost, x, y = cloud.cost, cloud.x, cloud.y
    n = x.shape[0]
    levels = halving.depth(n, block)
    first, rest = jax.random.split(key)
    given = _halved(x, y, levels, first)
    unknown = jnp.full((MEMORY + 1,), jnp.inf, x.dtype)
    start = _State(jnp.arange(n, dtype=jnp.int32), unknown, jnp.asarray(0, jnp.int32))
    if not levels:  # one block, which is matched exactly
        return _matched_in(cost, x, y, given, start)

    def going(s):
        gain = _gain(s.values)
        bad = (s.step > 0) & ~jnp.isfinite(s.values[0])
        return (gain > tolerance) & ~bad & (s.step < max_steps)

    def step(s):
        # The first sweep is over the blocks that were halved together. One program for
        # all: that of a match is large.
        cut = _cut(x, y, levels, s, rest)
        blocks = jax.tree.map(lambda u, v: jnp.where(s.step == 0, u, v), given, cut)
        return _matched_in(cost, x, y, blocks, s)

    return control.while_loop(going, step, start)


def _clouds(x: Any, y: Any) -> tuple[jax.Array, jax.Array]:
    x, y = as_float("x", x), as_float("y", y)
    for name, points in (("x", x), ("y", y)):
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(
                f"{name} must have shape [points, dimension], not empty; "
                f"got {points.shape}"
            )
    if x.shape != y.shape:
        raise ValueError(
            f"x and y must have the same shape; got x {x.shape} and y {y.shape}"
        )
    dtype = jnp.result_type(x.dtype, y.dtype)
    return x.astype(dtype), y.astype(dtype)


@hints.answered
def solve_bijection(
    x: ArrayLike,
    y: ArrayLike,
    *,
    cost: str | CostFunction = "sqeuclidean",
    block: int = BLOCK,
    tolerance: ArrayLike = TOLERANCE,
    max_steps: ArrayLike = SWEEPS,
    key: jax.Array | None = None,
) -> Bijection:
    """Match as many points x as y one to one, up to some 1e6, near the least cost.

        minimise (1 / n) sum_i c(x_i, y_p(i))   over permutations p

    Both clouds are halved together until blocks are small; blocks are matched exactly.
    Sweeps then match the pairs again in other blocks, which cannot raise the cost.

    Args:
      x: [n, d] points.
      y: [n, d] points.
      cost: name or function of two points, as in `PointCloud`. Halving looks at means,
        which suits squared distances and what is monotone in them.
      block: largest block, static. Larger ones end nearer to the least cost.
      tolerance: [] relative gain of three sweeps at which to stop.
      max_steps: [] limit of sweeps.
      key: a key of `jax.random` for directions; `key(0)` if None.

    Returns:
      The `Bijection`. Its value is an upper bound of the optimum; up to `block` points
      it is the optimum. There is no proof of how near it is: `solve_exact` has one.

    Raises:
      TypeError, ValueError: a wrong type or shape; points that are not finite if they
        are not traced.

    Status: CONVERGED; MAX_STEPS; INVALID_INPUT, with -1 and NaN, for traced points that
      are not finite; NONFINITE, with the permutation that was reached, for costs that
      are not.
    Cost: a sweep takes n / block exact solves and O(n d log n); memory O(n d), and
      three arrays [block, block]. No array [n, n].
    Source: hierarchical refinement, Halmos et al. (ICML 2025), with halves by means in
      place of low-rank plans. docs/low_rank.md.

    Example:
      >>> found = jaxsns.solve_bijection(x, y)
      >>> moved = y[found.permutation]
    """
    x, y = _clouds(x, y)
    block = arguments.as_count("block", block)
    require_positive("tolerance", tolerance)
    steps = as_positive("max_steps", max_steps, jnp.int32)
    key = jax.random.key(0) if key is None else arguments.as_key("key", key)
    fine = arguments.holds(
        lambda xp, u, v: xp.all(xp.isfinite(u)) & xp.all(xp.isfinite(v)),
        lambda: "x and y must be finite",
        x,
        y,
    )
    cloud = PointCloud(x, y, cost).settled()
    limit = jnp.asarray(tolerance, x.dtype)
    stopped = jax.lax.stop_gradient((cloud, limit, steps, key))
    end = _run(block, *stopped)
    whole = halving.depth(x.shape[0], block) == 0
    gain = jnp.zeros((), x.dtype) if whole else _gain(end.values)
    near = gain <= limit
    status = jnp.where(near, code(Status.CONVERGED), code(Status.MAX_STEPS))
    finite = jnp.isfinite(end.values[0])
    status = jnp.where(finite, status, code(Status.NONFINITE))
    status = jnp.where(fine, status, code(Status.INVALID_INPUT)).astype(jnp.int32)
    permutation = jnp.where(fine, end.permutation, -1)
    value = jnp.mean(_pairs(cloud.cost, x, y[end.permutation]))
    value = arguments.nan_unless(fine, value)
    return Bijection(permutation, value, gain, status, end.step)
