"""The same answer outside jit, inside it, with constants folded and under vmap.

Atoms without mass and forbidden pairs are stood for by large finite numbers; XLA may
divide two of these differently once a program is compiled.

And no false alarm under JAX's debugging settings. NaN and infinities are looked at
outside jit, where the result of each operation is checked. Numbers given as Python
numbers are transfers outside jit, in all of JAX, so that guard, and the search for
leaked tracers, is for compiled functions.
"""

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest

MODES = {
    "jit": lambda f, d: jax.jit(f)(d),
    "constants folded": lambda f, d: jax.jit(lambda: f(d))(),
    "vmap": lambda f, d: jax.tree.map(
        lambda x: x[1],
        jax.jit(jax.vmap(f))(jax.tree.map(lambda x: jnp.stack([x, x]), d)),
    ),
}
# Several solves each: the program with constants has to do for plain jit as well.
LARGE = {"ordering", "free barycentre", "loss", "pooling", "unbalanced divergence"}
LARGE |= {"streamed", "attention", "divergence", "exact", "bijection", "penalised"}
LARGE |= {"quadratic", "constrained", "small things", "sparse", "low rank", "debiased"}
# Sums of other orders; solves may also stop a step later. The largest seen is 2e-5.
CLOSE = {np.dtype(np.float32): 2e-4, np.dtype(np.float64): 1e-8}
FILLED = "ordering"  # with NaN in what does not count, by design
# A marginal that is met exactly beside a penalised one has an infinite rho.
INFINITE = {"semi-relaxed partial"}
COMPILED = ["sinkhorn", "partial", "pooling", "fixed barycentre"]


@pytest.mark.parametrize("name", calls.CALLS)
def test_modes_agree_where_there_is_no_mass(name):
    data = calls.data(padded=True)
    call = calls.CALLS[name]
    with jax.debug_nans(name != FILLED):
        want = jax.block_until_ready(call(data))
    for key, value in want.items():
        for x in jax.tree.leaves(value):
            assert np.isfinite(x).all(), (name, key)
    for mode, run in MODES.items():
        if mode == "jit" and name in LARGE:
            continue
        got = run(call, data)
        for key in want:
            if key.startswith("sampled"):
                mass = data.a if key == "sampled rows" else data.b
                for drawn in got[key]:
                    assert (np.asarray(mass)[np.asarray(drawn)] > 0).all(), (mode, key)
                continue
            pairs = zip(
                jax.tree.leaves(want[key]), jax.tree.leaves(got[key]), strict=True
            )
            for x, y in pairs:
                close = CLOSE.get(x.dtype, 0)
                np.testing.assert_allclose(
                    y, x, rtol=close, atol=close, err_msg=f"{name}: {key}, {mode}"
                )


@pytest.mark.parametrize("name", sorted(set(calls.CALLS) - INFINITE))
def test_nothing_is_infinite_in_plain_data(name):
    with jax.debug_infs(True):
        jax.block_until_ready(calls.CALLS[name](calls.data(padded=False)))


def test_no_alarm_of_nan_where_everything_counts():
    with jax.debug_nans(True):
        jax.block_until_ready(calls.ordering(calls.data(padded=False), masked=False))


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_without_transfers_and_leaks(name):
    data = calls.data(padded=True)
    run = jax.jit(calls.CALLS[name])
    with jax.transfer_guard("disallow"), jax.checking_leaks():
        jax.block_until_ready(run(data))
