"""Strict arithmetic for all tests: float64, no silent promotion of dtype or rank."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def _free_compiled_programs():
    """Compiled programs of one module are of no use to the next; memory is."""
    yield
    jax.clear_caches()
