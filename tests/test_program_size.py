"""Programs stay as small as they are: their size is what the first call waits for.

Fusions of the optimised program on the CPU, with the flags of tests/conftest.py:
deterministic for a version of jaxlib. `python -m experiments.program_size` prints them
for XLA's defaults, and docs/decisions/D49.md has that table. A program that shrinks by
more than a tenth gets its new number here.
"""

import importlib.metadata
import os

import jax
import jax.numpy as jnp
import pytest
from conftest import FAST_COMPILATION
from jax import ShapeDtypeStruct as Shape

import jaxsns


def _value(cost):
    return jaxsns.solve(cost, epsilon=0.01).value


def _squares(cost):
    return jnp.sum(jaxsns.solve(cost, epsilon=0.01).f ** 2)


def _unbalanced(cost):
    return jaxsns.solve(cost, epsilon=0.01, rho_a=1.0, rho_b=1.0).value


def _divergence(x, y):
    return jaxsns.sinkhorn_divergence(x, y, epsilon=0.01).value


def _streamed(x, y):
    cloud = jaxsns.PointCloud(x, y, streamed=True)
    return jaxsns.solve(cloud, epsilon=0.1).value


COST, BATCH = (Shape((400, 500), float),), (Shape((16, 90, 100), float),)
CLOUDS = (Shape((256, 2), float),) * 2
STREAMED = (Shape((9000, 3), jnp.float32),) * 2
PROGRAMS = {  # function, shapes, fusions
    "value": (_value, COST, 152),
    "gradient of f": (jax.grad(_squares), COST, 192),
    "gradient of the unbalanced value": (jax.grad(_unbalanced), COST, 190),
    "gradient of the divergence": (jax.grad(_divergence), CLOUDS, 219),
    "vmap, value": (jax.vmap(_value), BATCH, 289),
    "streamed, value": (_streamed, STREAMED, 715),
}


@pytest.mark.skipif(
    importlib.metadata.version("jaxlib") != "0.10.1"
    or jax.config.jax_platforms not in (None, "cpu")
    or FAST_COMPILATION != os.environ["XLA_FLAGS"],
    reason="sizes are those of one jaxlib with the flags of the tests",
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_size_of_a_program(name):
    function, shapes, fusions = PROGRAMS[name]
    text = jax.jit(function).lower(*shapes).compile().as_text()
    found = text.count(" fusion(")
    assert 0.9 * fusions <= found <= 1.1 * fusions, found
