"""The example models on tiny input: the same call in each library that is there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

plain = pytest.importorskip("experiments.layers.plain")


def _sets():
    r = np.random.default_rng(0)
    mask = np.arange(6) < np.asarray([3, 6, 5])[:, None]
    return jnp.asarray(r.normal(size=(3, 6, 3)), jnp.float32), jnp.asarray(mask)


def _check(logits, parameters):
    points, mask = _sets()
    run = jax.jit(logits)
    out = run(parameters, points, mask)
    assert out.shape == (3, 10)
    assert np.all(np.isfinite(out))
    moved = jnp.where(mask[..., None], points, 7.0)
    np.testing.assert_array_equal(run(parameters, moved, mask), out)


@jax.numpy_rank_promotion("allow")
@jax.numpy_dtype_promotion("standard")
def test_plain_jax():
    _check(plain.logits, plain.make(jax.random.key(0)))


@jax.numpy_rank_promotion("allow")
@jax.numpy_dtype_promotion("standard")
def test_flax():
    pytest.importorskip("flax")
    from experiments.layers import flax_model

    _check(flax_model.logits, flax_model.make(jax.random.key(0), *_sets()))


@jax.numpy_rank_promotion("allow")
@jax.numpy_dtype_promotion("standard")
def test_equinox():
    pytest.importorskip("equinox")
    from experiments.layers import equinox_model

    parameters, rest = equinox_model.make(jax.random.key(0))
    _check(lambda p, x, m: equinox_model.logits(rest, p, x, m), parameters)
