"""One call of a Pallas kernel for all platforms."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxsns import control

WARPS = 8  # of 32 threads for each program of a kernel on a GPU [D48]


def call(
    kernel: Callable[..., None],
    out: Sequence[jax.ShapeDtypeStruct],
    operands: Sequence[jax.Array],
    grid: tuple[int, ...],
    blocks: Sequence[tuple[tuple[int, ...], Callable[..., tuple[Any, ...]]]],
    out_blocks: Sequence[tuple[tuple[int, ...], Callable[..., tuple[Any, ...]]]],
) -> list[jax.Array]:
    """Run a kernel: by Triton on a GPU, Mosaic on a TPU, interpreted on a CPU.

    Args:
      kernel: of references to blocks of the operands and of the results.
      out: shapes and dtypes of the results.
      operands: arrays.
      grid: how often it runs along each axis.
      blocks: for each operand the shape of a block, and where the one of a place of
        the grid begins, counted in blocks.
      out_blocks: the same for the results.

    The interpreter is for tests: it is slow. Pallas is imported here, when it is used.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    def run(interpret: bool, params: Any = None) -> Callable[..., list[jax.Array]]:
        return pl.pallas_call(
            kernel,
            out_shape=list(out),
            grid=grid,
            in_specs=[pl.BlockSpec(*block) for block in blocks],
            out_specs=[pl.BlockSpec(*block) for block in out_blocks],
            interpret=interpret,
            compiler_params=params,
        )

    return control.platform_dependent(
        *operands,
        cpu=run(True),
        tpu=run(False),
        default=run(False, triton.CompilerParams(num_warps=WARPS)),
    )
