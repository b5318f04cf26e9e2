"""Hypothesis: whatever comes in, what is claimed is true."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import references

import jaxsns
from jaxsns import Status

# Few shapes, so that few programs are compiled; everything else varies.
SHAPES = [(1, 1), (3, 5), (5, 3), (8, 8), (66, 70)]


@st.composite
def cases(draw):
    shape = draw(st.sampled_from(SHAPES))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    r = np.random.default_rng(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(["random", "ties", "points", "constant"]))
    if kind == "random":
        cost = r.random(shape)
    elif kind == "ties":
        cost = r.integers(0, 3, shape).astype(float)
    elif kind == "constant":
        cost = np.ones(shape)
    else:
        x, y = r.normal(size=(shape[0], 2)), r.normal(size=(shape[1], 2))
        cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    scale = 10.0 ** draw(st.integers(-8, 8))
    spread = draw(st.sampled_from([0.0, 1.0, 5.0]))
    masses = []
    for size in shape:
        mass = np.exp(spread * r.normal(size=size))
        if size > 2 and draw(st.booleans()):
            mass[r.integers(size)] = 0
        masses.append((mass / mass.sum()).astype(dtype))
    # Equal totals in float32 as well, to rounding of one entry.
    epsilon = scale * 10.0 ** draw(st.floats(-3, 1))
    return (scale * cost).astype(dtype), *masses, dtype(epsilon)


@hypothesis.settings(max_examples=250, deadline=None, derandomize=True)
@hypothesis.given(cases(), st.sampled_from(["auto", "sinkhorn", "newton"]))
def test_a_claim_of_convergence_is_true(case, method):
    cost, a, b, epsilon = case
    s = jaxsns.solve(cost, a, b, epsilon=epsilon, method=method, max_steps=3000)
    status = Status(int(s.status))
    assert status in (Status.CONVERGED, Status.STALLED, Status.MAX_STEPS), s
    if method != "sinkhorn":
        assert status != Status.MAX_STEPS, s
    f, g = np.asarray(s.f, float), np.asarray(s.g, float)
    assert np.all(np.isfinite(f[a > 0]))
    assert np.all(np.isfinite(g[b > 0]))
    true = references.error(
        cost, a.astype(float), b.astype(float), f, g, float(epsilon)
    )
    single = cost.dtype == np.float32
    # The plan of given potentials is only known up to rounding of the exponent.
    largest = max(np.abs(cost).max(), np.abs(f[a > 0]).max(), np.abs(g[b > 0]).max())
    rounding = 2 * np.finfo(cost.dtype).eps * (largest / float(epsilon) + 10)
    assert abs(true - float(s.error)) <= rounding
    if status == Status.CONVERGED:
        assert true <= (2e-5 if single else 1e-10) + rounding
    assert np.isfinite(float(s.value))
    assert np.all(np.isfinite(s.plan()))
