"""The proof that forbidden pairs leave no plan, against all sets of rows."""

import itertools

import jax
import numpy as np
import pytest

import jaxsns
from jaxsns.problem import feasibility
from jaxsns.problem.feasibility import infeasible


def _excess(allowed, a, b):
    """Largest mass that a set of rows has beyond all columns that it may use."""
    sets = itertools.product([False, True], repeat=len(a))
    return max(a[list(s)].sum() - b[allowed[list(s)].any(axis=0)].sum() for s in sets)


def _swept(allowed, a, b):
    """Potentials over epsilon after plain sweeps, costs zero."""
    f, g = np.zeros(len(a)), np.zeros(len(b))
    for _ in range(300):
        reach = np.where(allowed, np.exp(f - f.max())[:, None], 0).sum(axis=0)
        g = np.log(b / np.maximum(reach, 1e-300)) - f.max()
        reach = np.where(allowed, np.exp(g - g.max()), 0).sum(axis=1)
        f = np.log(a / np.maximum(reach, 1e-300)) - g.max()
    return f, g


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_proofs_are_those_of_all_sets(shape):
    """Rows are the shorter side and the longer one; ties, as costs are zero."""
    r = np.random.default_rng(0)
    epsilon = 0.3

    @jax.jit
    def found(cost, a, b, f, g):
        problem = jaxsns.make_problem(cost, a, b, epsilon=epsilon)
        # Each alone: the other would hide what one misses.
        rows = feasibility._overfull(cost, a, None, b, None, f, 1e-9)
        columns = feasibility._overfull(cost.T, b, None, a, None, g, 1e-9)
        return infeasible(problem, f, g), rows, columns

    proved = {True: 0, False: 0}
    while min(proved.values()) < 8:
        allowed = r.random(shape) < 0.5
        a, b = (
            x / x.sum() for x in (r.random(shape[0]) + 0.1, r.random(shape[1]) + 0.1)
        )
        excess = _excess(allowed, a, b)
        if abs(excess) < 0.02 and excess != 0:
            continue
        f, g = _swept(allowed, a, b)
        cost = np.where(allowed, 0.0, np.inf)
        expected = excess > 0.01
        answers = found(cost, a, b, epsilon * f, epsilon * g)
        assert [bool(x) for x in answers] == [expected] * 3
        proved[expected] += 1


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("penalised", [(), ("rho_a",), ("rho_b",)])
def test_an_atom_without_any_pair(transposed, penalised):
    """No plan, unless its marginal is only penalised."""
    cost = np.ones((3, 4))
    cost[1] = np.inf
    high = np.array([-100.0, 0, -100])
    f, g = (np.zeros(4), high) if transposed else (high, np.zeros(4))
    cost = cost.T if transposed else cost
    rho = dict.fromkeys(penalised, 1.0)
    problem = jaxsns.make_problem(cost, epsilon=1.0, **rho)
    alone = "rho_b" if transposed else "rho_a"
    assert bool(infeasible(problem, f, g)) == (alone not in penalised)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3)])
def test_all_rows_may_be_too_many(shape):
    cost = np.ones(shape)
    cost[:, 1] = np.inf
    a, b = (np.full(k, 1 / k) for k in shape)
    assert bool(feasibility._overfull(cost, a, None, b, None, np.zeros(shape[0]), 1e-9))
