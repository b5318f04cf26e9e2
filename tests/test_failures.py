"""Each status reached on purpose, each error message read as a user reads it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import jaxsns
from jaxsns import NewtonOptions, PointCloud, SinkhornOptions, SNSOptions, Status

COST = np.random.default_rng(0).random((4, 5))
A, B = np.full(4, 0.25), np.full(5, 0.2)

BAD = {
    "cost rank": (dict(cost=np.ones(3)), ValueError, r"cost must have shape \[n, m\]"),
    "cost empty": (dict(cost=np.ones((0, 3))), ValueError, "at least one row"),
    "cost type": (dict(cost="abc"), TypeError, "cost must be an array of real numbers"),
    "cost complex": (dict(cost=COST + 0j), TypeError, "cost must hold real numbers"),
    "cost bool": (dict(cost=COST > 0.5), TypeError, "cost must hold real numbers"),
    "a shape": (
        dict(a=np.ones(5)),
        ValueError,
        r"a must have shape \[n\] = \[4\] to match cost \(4, 5\); got \(5,\)",
    ),
    "b rank": (dict(b=np.ones((5, 1))), ValueError, r"b must have shape \[m\] = \[5\]"),
    "b type": (dict(b=object()), TypeError, "b must be an array"),
    "epsilon shape": (dict(epsilon=np.ones(2)), ValueError, "epsilon must be a scalar"),
    "relative_to": (dict(relative_to="var"), ValueError, "relative_to must be None or"),
    "scale_cost": (dict(scale_cost="var"), ValueError, "scale_cost must be None or"),
    "relative to what": (
        dict(epsilon=None, relative_to="max"),
        ValueError,
        "relative_to needs an epsilon",
    ),
    "method name": (dict(method="fast"), ValueError, "method must be one of 'auto'"),
    "method type": (dict(method=3), TypeError, "method must be a name or"),
    "init type": (dict(init=np.ones(4)), TypeError, r"init must be a pair \(f, g\)"),
    "init shape": (
        dict(init=(np.ones(5), np.ones(4))),
        ValueError,
        r"f of init must have shape \[4\]",
    ),
    "tolerance shape": (dict(tolerance=np.ones(2)), ValueError, "tolerance must be a"),
}

BAD_VALUES = {
    "cost nan": (dict(cost=np.where(COST > 0.9, np.nan, COST)), "cost must be finite"),
    "cost inf": (dict(cost=np.where(COST > 0.9, -np.inf, COST)), "cost must be finite"),
    "a negative": (
        dict(a=A - np.eye(4)[2]),
        r"a must hold finite masses >= 0; got -0.75 ",
    ),
    "a zero": (dict(a=A * 0), "a must have a positive total"),
    "b nan": (dict(b=B * np.nan), "b must hold finite masses"),
    "totals": (dict(a=2 * A), r"equal totals; got 2 and 1 \(normalise both"),
    "epsilon zero": (dict(epsilon=0.0), "epsilon must be positive and finite; got 0.0"),
    "epsilon negative": (dict(epsilon=-1.0), "epsilon must be positive"),
    "epsilon nan": (dict(epsilon=np.nan), "epsilon must be positive"),
    "tolerance": (dict(tolerance=0.0), "tolerance must be positive"),
    "max_steps": (dict(max_steps=0), "max_steps must be positive"),
    "init": (dict(init=(A * np.nan, B)), "f of init must not contain NaN"),
}


def _solve(**changes):
    arguments = dict(cost=COST, a=A, b=B, epsilon=0.1) | changes
    return jaxsns.solve(**arguments)


@pytest.mark.parametrize("name", BAD)
def test_bad_structure_raises_and_names_the_argument(name):
    changes, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        _solve(**changes)


@pytest.mark.parametrize("name", [k for k in BAD if k.split()[0] in ("cost", "a", "b")])
def test_bad_structure_raises_under_jit_as_well(name):
    changes, kind, message = BAD[name]
    if not all(isinstance(v, np.ndarray) for v in changes.values()):
        pytest.skip("not an array: cannot be traced")
    with pytest.raises(kind, match=message):
        jax.jit(lambda kw: _solve(**kw))(changes)


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_concrete_values_raise(name):
    changes, message = BAD_VALUES[name]
    with pytest.raises(ValueError, match=message):
        _solve(**changes)


TRACED = {
    "cost nan": Status.NONFINITE,
    "a negative": Status.INVALID_INPUT,
    "a zero": Status.INVALID_INPUT,
    "b nan": Status.INVALID_INPUT,
    "totals": Status.MASS_MISMATCH,
    "epsilon zero": Status.INVALID_INPUT,
    "epsilon negative": Status.INVALID_INPUT,
    "epsilon nan": Status.INVALID_INPUT,
    "tolerance": Status.INVALID_INPUT,
}


@functools.partial(jax.jit, static_argnums=0)
def _traced(method, arguments):
    return jaxsns.solve(**arguments, method=method)


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn", "sns"])
@pytest.mark.parametrize("name", TRACED)
def test_bad_traced_values_become_a_status_and_nan(name, method):
    arguments = dict(cost=COST, a=A, b=B, epsilon=0.1, tolerance=1e-9)
    arguments |= BAD_VALUES[name][0]
    s = _traced(method, arguments)
    assert int(s.status) == TRACED[name]
    assert not bool(s.converged)
    assert np.all(np.isnan(s.f))
    assert np.isnan(s.value)
    with pytest.raises(jaxsns.NotConvergedError, match=TRACED[name].name):
        s.raise_if_failed()


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn", "sns"])
def test_step_limit_says_so_and_keeps_the_best(method):
    cost, a, b = problems.assignment()
    s = jaxsns.solve(cost, a, b, epsilon=1e-3, max_steps=3, method=method)
    assert int(s.status) == Status.MAX_STEPS
    assert np.all(np.isfinite(s.f))
    assert 1e-9 < float(s.error) < 2
    assert int(s.counts.sweeps) <= 3


@pytest.mark.parametrize("method", ["auto", "newton", "sinkhorn"])
def test_stall_in_float64(method):
    cost, a, b = problems.uneven()
    s = jaxsns.solve(cost, a, b, epsilon=0.01, tolerance=1e-18, method=method)
    assert int(s.status) == Status.STALLED
    assert float(s.error) < 1e-12


def test_other_lanes_do_not_notice_a_bad_one():
    costs = np.stack([COST, np.where(COST > 0.9, np.nan, COST), COST])
    epsilons = jnp.asarray([0.1, 0.1, -1.0])
    batch = jax.vmap(lambda c, e: jaxsns.solve(c, A, B, epsilon=e))(costs, epsilons)
    assert [int(x) for x in batch.status] == [1, 3, 5]
    np.testing.assert_allclose(batch.f[0], _solve().f, atol=1e-14)
    with pytest.raises(jaxsns.NotConvergedError, match="2 of 3 solves; element 1"):
        batch.raise_if_failed()


def test_every_status_has_a_text():
    for status in Status:
        assert jaxsns.describe(status).startswith(status.name)
        assert len(jaxsns.describe(status)) > 20


def test_options_refuse_nonsense():
    with pytest.raises(ValueError, match="linear_solver must be"):
        NewtonOptions(linear_solver="lu")
    with pytest.raises(ValueError, match="kept must be a positive integer"):
        SNSOptions(kept=0)
    with pytest.raises(TypeError):
        SinkhornOptions(omega=1.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        _solve(tolerence=1e-3)


def test_point_clouds_are_checked():
    x, y = np.zeros((3, 2)), np.ones((4, 2))
    with pytest.raises(ValueError, match="cost must be one of cosine, dot"):
        PointCloud(x, y, "manhattan")
    with pytest.raises(TypeError, match="a name or a function of two points"):
        PointCloud(x, y, 2)
    with pytest.raises(ValueError, match="same dimension"):
        jaxsns.solve(PointCloud(x, np.ones((4, 3))), epsilon=1.0)
    with pytest.raises(ValueError, match=r"x must have shape \[points, dimension\]"):
        jaxsns.solve(PointCloud(x[0], y), epsilon=1.0)
    with pytest.raises(ValueError, match="y must be finite"):
        jaxsns.solve(PointCloud(x, y * np.nan), epsilon=1.0)
    with pytest.raises(ValueError, match="p of pnorm"):
        jaxsns.costs.pnorm(0.5)


def test_a_problem_brings_its_own_masses():
    problem = jaxsns.make_problem(COST, epsilon=0.1)
    assert jaxsns.solve(problem).converged
    with pytest.raises(TypeError, match="a Problem has its own"):
        jaxsns.solve(problem, epsilon=0.2)


def test_raise_if_failed_only_outside_jit():
    with pytest.raises(TypeError, match="outside jit only"):
        jax.jit(lambda c: jaxsns.solve(c, epsilon=0.1).raise_if_failed())(COST)
    assert _solve().raise_if_failed().converged


def test_operands_of_the_plan_are_checked():
    s = _solve()
    with pytest.raises(ValueError, match=r"\[m\] or \[m, k\] with m = 5 for axis=1"):
        s.apply(np.ones(4))
    with pytest.raises(ValueError, match="axis must be 0 or 1"):
        s.barycentric(np.ones(5), axis=2)


def test_without_any_mass_all_numbers_are_nan():
    """Under `jit` it is a status; no number may look like an answer."""

    def functions(a, b):
        s = jaxsns.solve(COST, a, b, epsilon=0.1)
        return s.value, s.transport_cost, jnp.sum(s.plan()), s.status

    zero = jnp.zeros(4)
    *numbers, status = jax.jit(functions)(zero, jnp.zeros(5))
    assert int(status) == Status.INVALID_INPUT
    assert np.all(np.isnan(numbers))
    lanes = jnp.stack([jnp.asarray(A), zero])
    *numbers, status = jax.jit(jax.vmap(lambda a: functions(a, jnp.asarray(B))))(lanes)
    assert status[0] == Status.CONVERGED
    assert np.all(np.isfinite([x[0] for x in numbers]))
    assert np.all(np.isnan([x[1] for x in numbers]))
    loss = lambda c, a: jaxsns.solve(c, a, jnp.zeros(5), epsilon=0.1).transport_cost
    assert np.all(np.isnan(jax.jit(jax.grad(loss))(jnp.asarray(COST), zero)))
