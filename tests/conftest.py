"""Strict arithmetic for all tests: float64, no silent promotion of dtype or rank."""

import gc
import importlib.metadata
import os
import pathlib
import tempfile

# Most of the suite's time is compilation, and optimisation is a third of that. CI runs
# it this way, and some of it with XLA's default, level 3, on what the wheel installs.
# The loops that jaxlib 0.10 writes without its new emitters compile twice as fast, and
# programs in one piece in nine tenths of a core's time.
FAST_COMPILATION = "--xla_backend_optimization_level=0"
FAST_COMPILATION += " --xla_cpu_parallel_codegen_split_count=1"
# Passes over loops take time that grows faster than a program: a third of what jaxlib
# 0.10 takes for one solve, and two fifths for a second derivative [D49].
FAST_COMPILATION += " --xla_disable_hlo_passes=" + ",".join(
    (
        "while-loop-invariant-code-motion",
        "simplify-while-loops",
        "while-loop-trip-count-annotator",
    )
)
if importlib.metadata.version("jaxlib").startswith("0.10."):
    FAST_COMPILATION += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", FAST_COMPILATION)
# Where in the source an operation came from, which nobody asks here: 5 % of the time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Fresh functions of equal programs, and programs freed between two files, compile once.
# JAX_COMPILATION_CACHE_DIR keeps them for the next time.
PROGRAMS = None
if not jax.config.jax_compilation_cache_dir:
    PROGRAMS = tempfile.TemporaryDirectory()
    jax.config.update("jax_compilation_cache_dir", PROGRAMS.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Tracing makes many objects and few of them are garbage: 3 % of the suite's time.
gc.set_threshold(100_000, 50, 50)


def pytest_unconfigure():
    if PROGRAMS is not None:
        PROGRAMS.cleanup()


@pytest.fixture(autouse=True)
def fresh_numbers(request):
    """A test draws the same numbers whatever ran before it."""
    if hasattr(request.module, "R"):
        request.module.R = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def programs_freed():
    """Free programs after a file: a process may map only so many pieces of memory.

    With all programs of the suite alive XLA's compiler meets Linux' limit of 65530
    (vm.max_map_count) and ends the process. A file adds up to 20,000.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if not maps.exists() or maps.read_text().count("\n") > 20_000:
        jax.clear_caches()
