"""Hypothesis: whatever comes in, what is claimed is true. See docs/drills.md.

The problems and the judge are those of `experiments.drills`, which runs them 100,000
times; a problem is a setting, a seed and a lane, so a failure here can be drawn again.
"""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import references

import jaxsns
from experiments.drills import checks, problems, relations, solving
from experiments.drills.problems import Setting
from jaxsns import Status

LANES = 48  # of all batches, so that each setting is one program
SEEDS = st.integers(0, 2**31)

# Few shapes, so that few programs are compiled; everything else varies.
BATCHES = [
    Setting((1, 1), "float32"),
    Setting((2, 7), "float64"),
    Setting((5, 3), "float32"),
    Setting((12, 12), "float32"),
    Setting((12, 12), "float64"),
    Setting((33, 40), "float32"),
    Setting((33, 40), "float64", geometry="shared"),
    Setting((5, 3), "float64", penalised=True),
    Setting((12, 12), "float64", "symmetric"),
]
SINGLES = [
    *[
        (Setting((5, 3), dtype, method), 20)
        for dtype in ("float32", "float64")
        for method in ("auto", "newton", "sinkhorn")
    ],
    (Setting((70, 66), "float32"), 30),
    (Setting((12, 20), "float64", geometry="grid"), 10),
    (Setting((33, 40), "float32", geometry="streamed"), 10),
]


def _many(examples):
    # A smaller seed is not a smaller problem: nothing to shrink.
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[hypothesis.Phase.generate],
    )


def _assert_true(setting, lanes, answers):
    verdict = checks.judge(setting, lanes, answers)
    wrong = {k: words for k, words in enumerate(verdict.violations) if words}
    assert not wrong, wrong
    if setting.method in ("auto", "newton") and not setting.penalised:
        # Nor does it give up before the dtype makes it.
        early = np.flatnonzero(verdict.early)
        assert early.size == 0, (early, answers.error[early])


@pytest.mark.parametrize("setting", BATCHES, ids=str)
def test_claims_of_lanes_are_true(setting):
    @_many(5)
    @hypothesis.given(SEEDS)
    def each(seed):
        lanes = problems.draw(setting, seed, LANES)
        _assert_true(setting, lanes, solving.solve(setting, lanes))

    each()


@pytest.mark.parametrize(("setting", "number"), SINGLES, ids=str)
def test_claims_of_single_solves_are_true(setting, number):
    @_many(number)
    @hypothesis.given(SEEDS)
    def each(seed):
        lanes = problems.draw(setting, seed, 1)
        _assert_true(setting, lanes, solving.alone(setting, lanes))

    each()


@pytest.mark.parametrize("name", relations.NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_problem_told_otherwise_has_the_same_answer(name, dtype):
    setting = Setting((12, 12), dtype)
    compared = 0
    for seed in (11, 12):
        told = relations.tell(name, setting, problems.draw(setting, seed, LANES), seed)
        answers = [solving.solve(setting, x) for x in (told.first, told.second)]
        violations, judged = relations.compare(setting, told, *answers)
        assert not any(violations), violations
        compared += judged.sum()
    assert compared > LANES


def test_the_judge_sees_what_is_wrong():
    """Its own drill: answers spoilt by hand."""
    setting = Setting((12, 12), "float64")
    lanes = problems.draw(setting, 3, LANES)
    good = solving.solve(setting, lanes)
    assert not any(checks.judge(setting, lanes, good).violations)
    fine = good.status == Status.CONVERGED

    def spoilt(**changes):
        violations = checks.judge(setting, lanes, good._replace(**changes)).violations
        return np.asarray([bool(words) for words in violations])[fine].mean()

    epsilon = lanes.epsilon[:, None]
    assert spoilt(f=good.f + 1e-6 * epsilon) > 0.95
    assert spoilt(f=good.f + 1e-3 * epsilon, g=good.g - 1e-3 * epsilon) > 0.6  # gauge
    assert spoilt(f=np.where(lanes.a > 0, good.f, -1e9)) > 0.2
    assert spoilt(value=good.value * (1 + 1e-9)) > 0.9
    assert spoilt(error=good.error / 3 - 1e-12) > 0.2
    assert spoilt(status=np.full_like(good.status, Status.INFEASIBLE)) == 1
    infeasible = np.asarray([kind == "infeasible" for kind in lanes.kinds])
    claimed = good._replace(status=np.full_like(good.status, Status.CONVERGED))
    words = checks.judge(setting, lanes, claimed).violations
    assert infeasible.sum() > 0
    assert all(words[k] for k in np.flatnonzero(infeasible))


def test_the_error_of_a_penalised_problem_is_that_of_its_transpose():
    """More rows than columns: it was relative to what is wanted of the columns.

    Of a solve that was cut short, so that both sides do not want the same.
    """
    r = np.random.default_rng(0)
    cost, a, b = r.random((7, 4)), r.random(7) + 3, r.random(4)
    solve = lambda cost, a, b, rho_a, rho_b: jaxsns.solve(
        cost, a, b, epsilon=0.01, rho_a=rho_a, rho_b=rho_b, max_steps=1
    )
    s, t = solve(cost, a, b, 0.7, 0.2), solve(cost.T, b, a, 0.2, 0.7)
    plan = references.plan(cost, s.f, s.g, 0.01)
    wanted = a * np.exp(-s.f / 0.7), b * np.exp(-s.g / 0.2)
    off = np.abs(plan.sum(1) - wanted[0]).sum() + np.abs(plan.sum(0) - wanted[1]).sum()
    assert s.status == Status.MAX_STEPS
    assert wanted[1].sum() > 1.1 * wanted[0].sum()
    np.testing.assert_allclose(s.error, off / min(w.sum() for w in wanted), rtol=1e-9)
    np.testing.assert_allclose(t.error, s.error, rtol=1e-9)


@pytest.mark.parametrize("lane", [154, 232])
def test_lanes_in_step_do_not_give_up_on_a_refused_step(lane):
    """They ended STALLED at an error above 1, where a solve alone converges."""
    setting = Setting((12, 12), "float32")
    lanes = problems.draw(setting, 0, lane + 1)
    lanes = problems.some(lanes, [lane] * LANES)
    answers = solving.solve(setting, lanes)
    assert np.all(answers.status == Status.CONVERGED)
    _assert_true(setting, lanes, answers)
