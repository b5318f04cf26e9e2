"""Parts of a plan without the whole of it: largest entries, matches, sampled pairs.

Rows of the plan are formed in blocks from the potentials; of a point cloud not even
the costs are formed as a whole. Products with vectors are `Solution.apply`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import hints
from jaxsns.geometry import Grid, PointCloud
from jaxsns.numerics import is_forbidden, masked, safe_log
from jaxsns.partial import PartialSolution
from jaxsns.problem import arguments
from jaxsns.solution import Solution, core_potentials, one_solution

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO

BLOCK = 1 << 20  # entries of the plan that exist at a time [D26]


class LargestEntries(NamedTuple):
    """The plan with only its largest entries."""

    matrix: "BCOO"  # [n, m] with n k (or m k) entries, in mass; largest first
    left_out: jax.Array  # [n] mass of each row (or [m] column) outside of it

    __repr__ = hints.one_line


def _cost_rows(geometry: Any, indices: jax.Array, axis: int) -> jax.Array:
    """[s, m] costs of some rows, or [s, n] of some columns."""
    if isinstance(geometry, PointCloud):
        name = "x" if axis == 1 else "y"
        some = getattr(geometry, name)[indices]
        geometry = dataclasses.replace(geometry, **{name: some})
        cost = geometry.dense().entries
        return cost if axis == 1 else cost.T
    if isinstance(geometry, Grid):
        return (geometry if axis == 1 else geometry.transposed()).rows(indices)
    cost = geometry.dense().entries
    return cost[indices] if axis == 1 else cost[:, indices].T


def _log_rows(solution: Solution, indices: jax.Array, axis: int) -> jax.Array:
    """[s, m] logarithm of some rows of the plan ([s, n] of columns, axis=0)."""
    problem = solution.problem
    problem, f, g = core_potentials(solution)
    a, b = problem.a > 0, problem.b > 0
    f, g, own, other = (f, g, a, b) if axis == 1 else (g, f, b, a)
    cost = _cost_rows(problem.geometry, indices, axis)
    real = own[indices][:, None] & other[None, :] & ~is_forbidden(cost)
    log = (f[indices][:, None] + g[None, :] - cost) / problem.epsilon
    return masked(log, real)


def _in_blocks(function: Callable, count: int, width: int):
    """Apply a function of indices [s] to 0 .. count - 1, a block of rows at a time."""
    size = min(count, max(BLOCK // width, 1))
    if size == count:
        return function(jnp.arange(count))
    blocks = -(-count // size)
    # The last block repeats the last row; what that gives is cut off.
    indices = jnp.minimum(jnp.arange(blocks * size), count - 1)
    out = jax.lax.map(function, indices.reshape(blocks, size))
    join = lambda x: x.reshape((blocks * size,) + x.shape[2:])[:count]
    return jax.tree.map(join, out)


def _sizes(solution: Solution, axis: int) -> tuple[int, int]:
    n, m = solution.problem.shape
    return (n, m) if axis == 1 else (m, n)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _largest(solution: Solution, k: int, axis: int) -> LargestEntries:
    count, width = _sizes(solution, axis)

    def block(indices):
        log = _log_rows(solution, indices, axis)
        # float32 chooses: in float64 `top_k` takes ten times as long on a CPU.
        chosen = jax.lax.top_k(log.astype(jnp.float32), k)[1]
        mass = jnp.sum(jnp.exp(log), axis=1)
        return chosen, jnp.exp(jnp.take_along_axis(log, chosen, axis=1)), mass

    chosen, entries, mass = _in_blocks(block, count, width)
    own = jnp.broadcast_to(jnp.arange(count, dtype=chosen.dtype)[:, None], chosen.shape)
    pair = (own, chosen) if axis == 1 else (chosen, own)
    indices = jnp.stack(pair, axis=-1).reshape(-1, 2)
    from jax.experimental.sparse import BCOO  # half the time of importing all of us

    matrix = BCOO(
        (entries.reshape(-1), indices),
        shape=solution.problem.shape,
        unique_indices=True,
    )
    return LargestEntries(matrix, jnp.maximum(mass - jnp.sum(entries, axis=1), 0))


def largest_entries(
    solution: Solution | PartialSolution, k: int, axis: int = 1
) -> LargestEntries:
    """Return the k largest entries of each row of the plan, and the mass they leave.

    Args:
      solution: of one problem, partial or not; its status says how good the plan is.
      k: entries of each row, from 1 to m; static.
      axis: 1, or 0 for the k largest of each column.

    Returns:
      A `BCOO` matrix [n, m] in mass, entries of a row together and largest first,
      and [n] the mass of each row outside of it, to the rounding of the row's mass.
      Entries that differ by less than float32 can tell may be exchanged. The values
      carry derivatives, which entries they are does not. NaN potentials give NaN.

    Raises:
      TypeError, ValueError: not a solution of one problem, k or axis out of range.

    Cost: one pass; n k numbers and a block of rows in memory.
    """
    solution = one_solution(solution)
    axis = arguments.as_axis(axis)
    k = arguments.as_count("k", k, _sizes(solution, axis)[1])
    return _largest(solution, k, axis)


@functools.partial(jax.jit, static_argnums=1)
def _argmax(solution: Solution, axis: int) -> jax.Array:
    count, width = _sizes(solution, axis)
    masses = solution.problem.a if axis == 1 else solution.problem.b

    def block(indices):
        log = _log_rows(solution, indices, axis)
        known = ~jnp.any(jnp.isnan(log), axis=1) & (masses[indices] > 0)
        best = jnp.argmax(log, axis=1).astype(jnp.int32)
        return jnp.where(known, best, -1)

    return _in_blocks(block, count, width)


def argmax_matching(solution: Solution | PartialSolution, axis: int = 1) -> jax.Array:
    """Return the column that each row sends most mass to.

    Two rows may share a column; `round_to_permutation` gives one each.

    Args:
      solution: of one problem; a `PartialSolution` too, without its virtual atoms.
      axis: 1, or 0 for the best row of each column.

    Returns:
      [n] int32 ([m] for axis=0), the first one among equals; -1 for atoms without
      mass and where potentials are NaN.

    Raises:
      TypeError, ValueError: not a solution of one problem, axis not 0 or 1.

    Cost: one pass without exponentials; a block of rows in memory.
    """
    solution = one_solution(solution)
    return _argmax(solution, arguments.as_axis(axis))


@functools.partial(jax.jit, static_argnums=(2, 3))
def _sample(solution: Solution, key: jax.Array, size: int, rows: str):
    n, m = solution.problem.shape
    first, second = jax.random.split(key)
    if rows == "plan":
        mass = lambda i: jax.nn.logsumexp(_log_rows(solution, i, 1), axis=1)
        log_mass = _in_blocks(mass, n, m)
    else:
        log_mass = safe_log(solution.problem.a)
    # One random number a draw: n of them, as the Gumbel trick needs, would be wasted.
    share = jnp.cumsum(jnp.exp(log_mass - jnp.max(log_mass)))
    u = share[-1] * jax.random.uniform(first, (size,), share.dtype)
    i = jnp.minimum(jnp.searchsorted(share, u, side="right"), n - 1)

    def block(indices):
        keys = jax.random.fold_in(second, indices[0])
        return jax.random.categorical(keys, _log_rows(solution, i[indices], 1), axis=1)

    j = _in_blocks(block, size, m)
    known = ~jnp.any(jnp.isnan(log_mass)) & ~jnp.any(jnp.isnan(solution.g))
    return tuple(jnp.where(known, x.astype(jnp.int32), -1) for x in (i, j))


def sample_pairs(
    solution: Solution | PartialSolution,
    key: jax.Array,
    size: int,
    *,
    rows: str = "plan",
) -> tuple[jax.Array, jax.Array]:
    """Draw pairs (i, j) with probability proportional to the plan, with replacement.

    A row is drawn first and then a column of it, as minibatch flow matching wants.

    Args:
      solution: of one problem; a `PartialSolution` too, without its virtual atoms.
      key: a key of `jax.random`.
      size: number of pairs; static.
      rows: "plan" draws i from the row sums of the plan, so that pairs follow the
        plan exactly whatever its error; "a" from the given masses, which saves the
        pass over the plan, and is refused for a `PartialSolution`.

    Returns:
      ([size], [size]) int32 rows and columns. Atoms without mass are never drawn.
      All -1 where potentials are NaN. No derivative.

    Raises:
      TypeError, ValueError: not a solution of one problem, bad size or rows.

    Cost: one pass over the plan ("plan"), n + size m numbers at random and at most
      [size, m] or a block of rows in memory.
    """
    partial = hasattr(solution, "real_pairs")
    solution = one_solution(solution)
    size = arguments.as_count("size", size)
    if rows not in ("plan", "a"):
        raise ValueError(f"rows must be 'plan' or 'a'; got {rows!r}")
    if partial and rows == "a":
        raise ValueError("rows must be 'plan' where not all of a is moved; got 'a'")
    key = arguments.as_key("key", key)
    return _sample(jax.lax.stop_gradient(solution), key, size, rows)
