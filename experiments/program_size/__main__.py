"""Print the size of each compiled program, and what compiling it takes.

    python -m experiments.program_size [name ...]

Fusions are counted in the optimised program of the CPU, which is deterministic for a
version of jaxlib. Seconds are CPU seconds of lowering and compiling, without a cache.
"""

import sys
import time

import jax

from experiments.program_size.programs import PROGRAMS


def measure(name: str) -> tuple[int, float]:
    """Fusions of a program, and CPU seconds that compiling it takes."""
    function, shapes = PROGRAMS[name]
    start = time.process_time()
    compiled = jax.jit(function).lower(*shapes).compile()
    seconds = time.process_time() - start
    return compiled.as_text().count(" fusion("), seconds


def main(names: list[str]) -> None:
    """Print a row a program."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_enable_compilation_cache", False)
    print(f"jax {jax.__version__}, {jax.default_backend()}")
    for name in names or PROGRAMS:
        fusions, seconds = measure(name)
        print(f"{name:36s} {fusions:5d} fusions {seconds:6.1f} CPU s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
