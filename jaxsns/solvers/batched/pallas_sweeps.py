"""Sinkhorn sweeps of tiny problems in lanes, all of them in one kernel.

XLA reads the kernels of all lanes from memory in every sweep, and starts a few
programs for each. Here a program has a tile of lanes, reads their kernels once, and
keeps them and the scalings in registers.
"""

import jax
import jax.numpy as jnp

from jaxsns.geometry import pallas

# [D48]
TILE = (8, 128)  # lanes of a program, as a TPU has its registers
LARGEST = 64  # entries of a problem: all of them are in registers [D48]


def fits(n: int, m: int) -> bool:
    """Whether there is a kernel for this size."""
    return n * m <= LARGEST


def _kernel(number: int, a_ref, b_ref, matrix_ref, u_ref, rows_ref, u_out, v_out):
    """`number` sweeps of a tile of lanes: references are [n or m, ...] + TILE."""
    n, m = a_ref.shape[0], b_ref.shape[0]
    a, b = [a_ref[i] for i in range(n)], [b_ref[j] for j in range(m)]
    matrix = [[matrix_ref[i, j] for j in range(m)] for i in range(n)]

    def sweep(_, state):
        u, _, rows = state
        # Rows without mass have sums 0, and 0 / 1 is as good a scaling as any.
        safe = [jnp.where(a[i] > 0, rows[i], rows[i] + 1) for i in range(n)]
        u = [u[i] * (a[i] / safe[i]) for i in range(n)]
        v = [b[j] / sum(matrix[i][j] * u[i] for i in range(n)) for j in range(m)]
        rows = [u[i] * sum(matrix[i][j] * v[j] for j in range(m)) for i in range(n)]
        return u, v, rows

    start = [u_ref[i] for i in range(n)], b, [rows_ref[i] for i in range(n)]
    u, v, _ = jax.lax.fori_loop(0, number, sweep, start)
    for i in range(n):
        u_out[i] = u[i]
    for j in range(m):
        v_out[j] = v[j]


def sweeps(
    number: int,
    a: jax.Array,
    b: jax.Array,
    matrix: jax.Array,
    u: jax.Array,
    rows: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Scalings (u, v) after sweeps of every lane, rows first.

    Args:
      number: of sweeps, at least 1.
      a: [n, lanes] masses.
      b: [m, lanes] masses.
      matrix: [n, m, lanes] kernels.
      u: [n, lanes] row scalings at the start.
      rows: [n, lanes] row sums at the start.
    """
    lanes = a.shape[-1]
    size = TILE[0] * TILE[1]

    def tiled(x: jax.Array) -> jax.Array:
        fill = [(0, 0)] * (x.ndim - 1) + [(0, -lanes % size)]
        x = jnp.pad(x, fill, constant_values=1)
        return x.reshape(*x.shape[:-1], -1, TILE[1])

    def block(x: jax.Array):
        lead = x.shape[:-2]
        return (*lead, *TILE), lambda k: (*[0] * len(lead), k, 0)

    operands = [tiled(x) for x in (a, b, matrix, u, rows)]
    outs = [operands[0], operands[1]]
    u, v = pallas.call(
        lambda *refs: _kernel(number, *refs),
        [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in outs],
        operands,
        (operands[0].shape[-2] // TILE[0],),
        [block(x) for x in operands],
        [block(x) for x in outs],
    )
    flat = lambda x: x.reshape(x.shape[0], -1)[:, :lanes]
    return flat(u), flat(v)
