"""What is recorded of a solve is what happened, and who watches is told no more."""

import dataclasses
import functools
import io
import re
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import references

import jaxsns
from jaxsns import NewtonOptions, SinkhornOptions, SNSOptions, Status, StepKind
from jaxsns.recording import progress as lines
from jaxsns.recording import recorder
from jaxsns.solvers import dispatch as runner
from jaxsns.solvers import registry

R = np.random.default_rng(0)
PLAIN = SinkhornOptions(tolerance=1e-10, overrelaxation=False)


def test_errors_are_those_of_a_dense_loop():
    cost, a, b = problems.assignment(20)
    epsilon = 0.05
    # From f = 0 of these costs: without it a solve begins at that of smaller ones.
    init = (np.zeros(20), None)
    s = jaxsns.solve(cost, a, b, epsilon=epsilon, method=PLAIN, history=True, init=init)
    rows = s.history.rows()
    count = int(s.counts.sweeps)
    assert s.history.count == count == rows["step"].size - 1
    np.testing.assert_array_equal(rows["step"][:-1], 1 + np.arange(count))
    assert np.all(rows["epsilon"] == epsilon)
    assert np.all(rows["kind"][:-1] == StepKind.SWEEP)
    log_a, log_b, g = np.log(a), np.log(b), None
    from scipy.special import logsumexp

    soft = lambda z, axis: epsilon * logsumexp(z / epsilon, axis=axis)
    f = np.zeros(20)
    g = epsilon * log_b - soft(f[:, None] - cost, 0)
    for k in range(12):
        f = epsilon * log_a - soft(g[None] - cost, 1)
        g = epsilon * log_b - soft(f[:, None] - cost, 0)
        true = references.error(cost, a, b, f, g, epsilon)
        np.testing.assert_allclose(rows["error"][k], true, rtol=1e-9)
    np.testing.assert_allclose(rows["error"][-2], s.error, rtol=1e-2)
    assert rows["error"][-1] == s.error


def test_a_long_solve_is_thinned_evenly_and_compiles_nothing_again():
    cost, a, b = problems.assignment(6)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(steps):
        options = SinkhornOptions(tolerance=1e-300, overrelaxation=False)
        s = jaxsns.solve(
            cost, a, b, epsilon=2e-4, method=options, max_steps=steps, history=True
        )
        return s.history, s.counts.sweeps

    for steps, stride in ((100, 1), (512, 1), (513, 2), (2048, 4), (5000, 16)):
        history, sweeps = run(steps)
        assert history.count == sweeps == steps
        np.testing.assert_array_equal(
            history.rows()["step"], [*np.arange(1, steps + 1, stride), steps]
        )
    # Every row that is there is that of its step.
    short, _ = run(512)
    errors = lambda h: dict(zip(h.rows()["step"][:-1], h.rows()["error"], strict=False))
    every, thin = errors(short), errors(history)
    for step in sorted(set(every) & set(thin)):
        assert every[step] == thin[step]


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        (NewtonOptions(linear_solver="cg"), {StepKind.CG}),
        (NewtonOptions(linear_solver="cholesky"), {StepKind.CHOLESKY}),
        (SNSOptions(tolerance=1e-9, kept=4), {StepKind.SPARSE}),
    ],
    ids=["cg", "cholesky", "sns"],
)
def test_kinds_and_counts_are_those_of_the_steps(method, kinds):
    cost, a, b = problems.assignment(40)
    epsilon = 0.01 if isinstance(method, SNSOptions) else 3e-4  # only ours has a path
    s = jaxsns.solve(
        cost, a, b, epsilon=epsilon, method=method, tolerance=1e-9, history=True
    )
    assert s.converged
    rows = {k: v[:-1] for k, v in s.history.rows().items()}
    newton = rows["kind"] != StepKind.SWEEP
    assert newton.sum() == int(s.counts.newton_steps) > 0
    assert {StepKind(k) for k in rows["kind"][newton]} <= kinds
    assert rows["products"][-1] == int(s.counts.linear_steps + s.counts.sparse_steps)
    assert np.all(rows["shift"][~newton] == 0)
    sparse = np.isin(rows["kind"], [StepKind.SPARSE, StepKind.PRECONDITIONED])
    assert np.all(rows["kept"][sparse] < 1)
    assert np.all(rows["kept"][~sparse] == 1)
    # First without a path; then down to the wanted epsilon.
    begun = np.argmax(rows["epsilon"] > epsilon)
    path = rows["epsilon"][begun:]
    assert np.all(rows["epsilon"] >= epsilon)
    assert np.all(np.diff(path) <= 0)
    assert not newton[: min(begun, 3)].any()
    assert rows["epsilon"][-1] == epsilon
    if isinstance(method, NewtonOptions):
        assert 3 <= begun <= 12  # the path, after three sweeps or one kernel


def _fixed_points(n, m):
    return jaxsns.PointCloud(R.random((n, 2)), R.random((m, 2)), streamed=True)


@pytest.mark.parametrize("method", ["auto", "sinkhorn"])
def test_streamed_passes_are_recorded(method):
    cloud = _fixed_points(70, 90)
    s = jaxsns.solve(cloud, epsilon=0.02, method=method, tolerance=1e-8, history=True)
    rows = s.history.rows()
    assert s.converged
    assert rows["step"].size == s.counts.sweeps + 1
    kind = StepKind.MODEL if method == "auto" else StepKind.SWEEP
    assert np.all(rows["kind"][:-1] == kind)
    assert rows["error"][-1] <= 1e-8 < rows["error"][0]
    assert np.all(np.diff(rows["passes"]) > 0)
    # The pass that checks is no step.
    assert rows["passes"][-1] == rows["passes"][-2] + 1 == int(s.counts.passes)


@pytest.mark.parametrize("method", ["symmetric", "fixed"])
def test_other_methods_record_every_step(method):
    cost, a, _ = problems.assignment(12)
    cost = cost + cost.T
    options = {"method": method, "tolerance": 1e-9}
    if method == "fixed":
        options = {"early_stop": False, "max_steps": 9}
    s = jaxsns.solve(cost, a, a, epsilon=1.0, history=True, **options)
    rows = s.history.rows()
    assert s.history.count == rows["step"].size - 1 == s.counts.sweeps
    assert rows["passes"][-1] == int(s.counts.passes)
    assert 0 <= rows["passes"][-1] - rows["passes"][-2] <= 1  # a pass may check


def _batch(lanes=3):
    costs = jnp.asarray(np.random.default_rng(1).random((lanes, 8, 9)))
    epsilons = jnp.asarray([0.5, 0.002, 0.05])[:lanes]
    return costs, epsilons


def test_lanes_have_histories_of_their_own():
    costs, epsilons = _batch()
    solve = lambda c, e: jaxsns.solve(c, epsilon=e, history=True)
    together = jax.jit(jax.vmap(solve))(costs, epsilons)
    for lane in range(3):
        alone = solve(costs[lane], epsilons[lane])
        mine = together.history.rows(lane)
        for name, column in alone.history.rows().items():
            np.testing.assert_allclose(mine[name], column, rtol=1e-6, atol=1e-13)
    with pytest.raises(ValueError, match=r"the history of a batch \(3,\) needs a lane"):
        together.history.rows()


@pytest.mark.parametrize("plain", [False, True], ids=["in turn", "side by side"])
def test_listeners_hear_each_step_of_each_lane_once(plain, monkeypatch):
    """Side by side a loop's body runs in lanes that have ended: nobody hears of it."""
    monkeypatch.setattr(recorder, "_due", lambda count, kind: count > 0)
    costs, epsilons = _batch()
    heard = []
    listener = heard.append
    if plain:
        watch = recorder.RecordingOptions(True, listener)
        options = registry.METHODS["auto"].options
        options = dataclasses.replace(options, tolerance=1e-10)

        def solve(cost, epsilon, lane):
            problem = jaxsns.make_problem(cost, epsilon=epsilon)
            lane = recorder.Lane(lane, jnp.asarray(3, jnp.int32))
            return runner._alone("newton", True, watch, problem, options, None, lane)

        out = jax.jit(jax.vmap(solve))(costs, epsilons, jnp.arange(3, dtype=jnp.int32))
        counts = out.record.count
    else:
        solve = lambda c, e: jaxsns.solve(c, epsilon=e, history=True, progress=listener)
        counts = jax.jit(jax.vmap(solve))(costs, epsilons).history.count
    jax.effects_barrier()
    assert len(set(np.asarray(counts))) > 1
    for lane in range(3):
        steps = [x for x in heard if x.lane == lane and x.status == Status.RUNNING]
        ends = [x for x in heard if x.lane == lane and x.status != Status.RUNNING]
        assert sorted(x.step for x in steps) == list(range(1, int(counts[lane]) + 1))
        assert [x.status for x in ends] == [Status.CONVERGED]
        assert ends[0].step == counts[lane]
    assert {x.lanes for x in heard} == {3}


def test_listeners_hear_no_step_of_a_lane_that_waits(monkeypatch):
    """Side by side lanes begin with Newton at different steps, and wait for others."""
    monkeypatch.setattr(recorder, "_due", lambda count, kind: count > 0)
    x, y = R.normal(size=(140, 10)), R.normal(size=(140, 10))
    cost = jnp.asarray(((x[:, None] - y[None]) ** 2).sum(-1))
    epsilons = jnp.max(cost) / jnp.asarray([4000.0, 40.0, 1000.0])
    heard = []
    watch = recorder.RecordingOptions(True, heard.append)
    options = registry.METHODS["newton"].options
    options = dataclasses.replace(options, tolerance=1e-10)

    def solve(epsilon, lane):
        problem = jaxsns.make_problem(cost, epsilon=epsilon)
        lane = recorder.Lane(lane, jnp.asarray(3, jnp.int32))
        return runner._alone("newton", False, watch, problem, options, None, lane)

    out = jax.jit(jax.vmap(solve))(epsilons, jnp.arange(3, dtype=jnp.int32))
    jax.effects_barrier()
    table = jaxsns.History(out.record.table, out.record.count)  # without the check
    products = [table.rows(lane)["products"][-1] for lane in range(3)]
    kinds = [table.rows(lane)["kind"] != jaxsns.StepKind.SWEEP for lane in range(3)]
    assert all(kind.any() for kind in kinds)
    assert len({kind.tobytes() for kind in kinds}) == 3
    assert len(set(products)) == 3
    for lane in range(3):
        steps = [x for x in heard if x.lane == lane and x.status == Status.RUNNING]
        assert [x.step for x in steps] == list(range(1, len(steps) + 1))
        errors = [x.error for x in steps]
        np.testing.assert_array_equal(errors, table.rows(lane)["error"])


def test_nested_vmap_numbers_all_lanes():
    costs = jnp.asarray(R.random((2, 3, 4, 5)))
    ends = []

    def listener(step):
        if step.status != Status.RUNNING:
            ends.append((step.lane, step.lanes))

    solve = lambda c: jaxsns.solve(c, epsilon=0.1, progress=listener).value
    jax.block_until_ready(jax.jit(jax.vmap(jax.vmap(solve)))(costs))
    jax.effects_barrier()
    assert sorted(ends) == [(k, 6) for k in range(6)]


def test_watching_changes_neither_answers_nor_gradients():
    cost, a, b = problems.uneven()
    epsilon = 0.3

    def loss(cost, **options):
        s = jaxsns.solve(cost, a, b, epsilon=epsilon, **options)
        return s.transport_cost, s

    grad = jax.value_and_grad(loss, has_aux=True)
    (_, quiet), expected = jax.jit(grad)(cost)
    heard = []
    watch = functools.partial(grad, history=True, progress=heard.append)
    (_, watched), found = jax.jit(watch)(cost)
    jax.effects_barrier()
    assert heard[-1].status == Status.CONVERGED
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(watched.f, quiet.f)
    assert quiet.history is None


def test_nothing_is_called_and_nothing_recorded_when_off():
    text = str(jax.make_jaxpr(lambda c: jaxsns.solve(c, epsilon=0.1).f)(np.eye(4)))
    assert "callback" not in text
    assert f"{recorder.CAPACITY},{len(recorder.COLUMNS)}" not in text
    assert f"{recorder.CAPACITY + 1},{len(recorder.COLUMNS)}" not in text
    history = lambda c: jaxsns.solve(c, epsilon=0.1, history=True).history.table
    text = str(jax.make_jaxpr(history)(np.eye(4)))
    assert "callback" not in text
    assert f"{recorder.CAPACITY},{len(recorder.COLUMNS)}" in text


def test_an_exception_of_the_listener_ends_the_solve():
    def enough(step):
        raise RuntimeError("seen enough")

    def waited():
        jax.block_until_ready(jaxsns.solve(np.eye(5), epsilon=0.1, progress=enough).f)
        jax.effects_barrier()

    with pytest.raises(Exception, match="seen enough"):
        waited()
    assert jaxsns.solve(np.eye(5), epsilon=0.1).converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": 1}, "history must be True or False"),
        ({"progress": "yes"}, "progress must be True, False or a function of a Step"),
        ({"progress": []}, "progress must be True, False or a function"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(TypeError, match=message):
        jaxsns.solve(np.eye(3), epsilon=0.1, **options)


def test_rows_and_pictures_outside_jit_only():
    s = jaxsns.solve(np.eye(3), epsilon=0.1, history=True)
    with pytest.raises(TypeError, match=r"rows\(\) works outside jit only"):
        jax.jit(lambda s: s.history.rows()["error"])(s)


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def _progress_on(monkeypatch, out):
    """What progress=True writes there."""
    monkeypatch.setattr(lines, "PAUSE", 1e9)
    monkeypatch.setattr(sys, "stderr", out)
    costs, epsilons = _batch()
    solve = lambda c, e: jaxsns.solve(c, epsilon=e, progress=True).converged
    assert jnp.all(jax.jit(jax.vmap(solve))(costs, epsilons))
    jax.effects_barrier()
    return out.getvalue()


LAST = r"jaxsns: 3 problems, CONVERGED: 3, worst error \S+ \(to 1.0e-10\) *"


def test_lines_where_nothing_can_be_redrawn(monkeypatch):
    text = _progress_on(monkeypatch, io.StringIO())
    assert text.startswith("jaxsns: problem 1 of 3, step 1, epsilon 5.00e-01, error ")
    assert re.fullmatch(LAST, text.splitlines()[-1])
    assert text.count("\n") == 2  # the first and the end


def test_a_bar_on_a_terminal_grows_to_the_end(monkeypatch):
    text = _progress_on(monkeypatch, _Terminal())
    assert text.count("\n") == 1  # once a solve
    *drawn, last = text[1:].rstrip("\n").split("\r")
    assert re.fullmatch(LAST, last)
    assert {len(x) for x in drawn} == {79}
    shares = [int(x.split("%")[0].split()[-1]) for x in drawn]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert 90 < shares[-1] <= 100
    for x, share in zip(drawn, shares, strict=True):
        bar = x[x.index("[") + 1 : x.index("]")]
        assert abs(bar.count("#") / len(bar) - share / 100) <= 0.5 / len(bar) + 0.005


def test_the_share_that_is_done_is_that_of_the_logarithm():
    assert lines.share_done(1e-1, 1e-3, 1e-5) == pytest.approx(0.5)
    assert lines.share_done(1e-1, 1.0, 1e-5) == 0
    assert lines.share_done(1e-6, 1e-7, 1e-5) == 1
    assert lines.share_done(np.nan, np.nan, 1e-5) == 0


def test_the_error_of_the_solution_is_the_last_row_and_is_told(monkeypatch):
    """Below the precision of the dtype an error on the kernel looks smaller."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    cost = np.random.default_rng(3).random((20, 20)).astype(np.float32)
    s = jaxsns.solve(cost, epsilon=1e-3, tolerance=1e-7, history=True, progress=True)
    jax.effects_barrier()
    assert s.status == Status.STALLED
    rows = s.history.rows()
    assert rows["kind"].tolist().count(StepKind.CHECK) == 1
    assert rows["kind"][-1] == StepKind.CHECK
    assert rows["error"][-1] == s.error > 2 * rows["error"][-2]
    assert rows["step"][-1] == int(s.history.count)
    assert rows["epsilon"][-1] == np.float32(1e-3)
    assert rows["passes"][-1] == int(s.counts.passes)
    said = out.getvalue().splitlines()[-1]
    assert f"error {float(s.error):.1e} (to 1.0e-07; " in said
    assert said.endswith("unchecked)")
    assert len(said) <= 79


def test_the_end_is_told_with_the_tolerance_that_counted():
    """The default is raised to what rounding explains; a printed solution fits."""
    told = []
    cost = np.random.default_rng(3).random((20, 20)).astype(np.float32)
    for options in ({}, {"tolerance": 1e-7}):
        s = jaxsns.solve(cost, epsilon=1e-3, progress=told.append, **options)
        jax.effects_barrier()
        assert told[-1].status == s.status
        assert told[-1].tolerance == s.tolerance != np.float32(2e-5)
        assert max(map(len, repr(s).splitlines())) <= 79
        assert max(map(len, str(jaxsns.diagnose(s)).splitlines())) <= 79
    assert s.tolerance == np.float32(1e-7)
    several = jax.vmap(lambda e: jaxsns.solve(cost, epsilon=e))(np.full(8, 0.1, "f"))
    assert max(map(len, repr(several).splitlines())) <= 79


def test_profiles_name_the_parts():
    grad = jax.grad(lambda c: jaxsns.solve(c, epsilon=1e-3).transport_cost)
    text = jax.jit(grad).lower(np.eye(5)).compile().as_text()
    names = functools.reduce(
        set.union, (set(x.split("/")) for x in re.findall(r'op_name="([^"]*)"', text))
    )
    assert {"stabilise", "sweep", "newton", "check"} <= names
    for name in ("jaxsns.solve", "jaxsns.implicit"):
        assert any(name in part for part in names)
