"""Public functions under JAX's debugging settings: no false alarm.

NaN and infinities are looked at outside jit, where the result of each operation is
checked. Numbers given as Python numbers are transfers outside jit, in all of JAX, so
that guard, and the search for leaked tracers, is for compiled functions.
"""

import functools

import calls
import jax
import pytest

PLAIN = {
    # NaN fills what does not count, by design.
    "ordering": functools.partial(calls.ordering, masked=False),
}
# A marginal that is met exactly beside a penalised one has an infinite rho.
INFINITE = {"semi-relaxed partial"}
COMPILED = ["sinkhorn", "partial", "pooling", "fixed barycentre"]


@pytest.mark.parametrize("name", calls.CALLS)
def test_no_alarm_of_nan(name):
    data = calls.data(padded=name not in PLAIN)
    with jax.debug_nans(True):
        jax.block_until_ready(PLAIN.get(name, calls.CALLS[name])(data))


@pytest.mark.parametrize("name", sorted(set(calls.CALLS) - INFINITE))
def test_nothing_is_infinite_in_plain_data(name):
    with jax.debug_infs(True):
        jax.block_until_ready(calls.CALLS[name](calls.data(padded=False)))


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_without_transfers_and_leaks(name):
    data = calls.data(padded=True)
    run = jax.jit(calls.CALLS[name])
    with jax.transfer_guard("disallow"), jax.checking_leaks():
        jax.block_until_ready(run(data))
