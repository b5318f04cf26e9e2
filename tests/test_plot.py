"""Pictures show the numbers that they say they do."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsns

matplotlib = pytest.importorskip("matplotlib")
figures = pytest.importorskip("matplotlib.figure")
R = np.random.default_rng(0)


def _ax():
    return figures.Figure().subplots()


def _solution():
    x, y = R.random((12, 2)), R.random((15, 2)) + 1
    a = np.arange(12.0) / 66  # the first atom has no mass
    return jaxsns.solve(jaxsns.PointCloud(x, y), a, epsilon=0.05)


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_plan_is_the_image():
    solution = _solution()
    ax = _ax()
    assert jaxsns.plot.plan(solution, ax=ax) is ax
    np.testing.assert_array_equal(ax.images[0].get_array(), solution.plan())
    assert ax.images[0].get_extent() == [-0.5, 14.5, 11.5, -0.5]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column j", "row i")
    assert ax.figure.axes[1].get_ylabel() == "mass of a pair"
    other = jaxsns.plot.plan(np.eye(3), ax=_ax(), colorbar=False, cmap="gray")
    assert len(other.figure.axes) == 1


def test_lines_join_the_points_of_the_largest_entries():
    solution = _solution()
    plan = np.asarray(solution.plan())
    ax = jaxsns.plot.lines(solution, ax=_ax(), most=5)
    drawn = ax.collections[0]
    best = np.argsort(plan, axis=None)[::-1][:5][::-1]
    i, j = np.unravel_index(best, plan.shape)
    cloud = solution.problem.geometry
    ends = np.stack([cloud.x[i], cloud.y[j]], axis=1)
    np.testing.assert_allclose(np.asarray(drawn.get_segments()), ends)
    np.testing.assert_allclose(drawn.get_alpha(), plan[i, j] / plan.max())
    rows, columns = ax.collections[1:]
    np.testing.assert_allclose(rows.get_offsets(), cloud.x)
    np.testing.assert_allclose(columns.get_offsets(), cloud.y)
    many = jaxsns.plot.lines(solution, ax=_ax(), least=0.5).collections[0]
    assert len(many.get_segments()) == (plan > 0.5 * plan.max()).sum()
    with pytest.raises(ValueError, match=r"x must have shape \[n, 2\]"):
        jaxsns.plot.lines(plan, cloud.x[:3], cloud.y)
    with pytest.raises(ValueError, match="x and y must be given"):
        jaxsns.plot.lines(plan)


def test_couplings_stand_beside_each_other():
    r = np.random.default_rng(1)
    x, y = r.normal(size=(4, 2)), 10 * r.normal(size=(3, 2))
    plan = r.uniform(size=(4, 3))
    links = np.zeros((4, 4))
    links[0, 1] = links[1, 0] = links[3, 2] = 1
    ax = jaxsns.plot.coupling(plan, x, y, x_links=links, ax=_ax(), least=0.5)
    graph, drawn, rows, columns = ax.collections
    assert len(graph.get_segments()) == 2
    assert len(drawn.get_segments()) == (plan > 0.5 * plan.max()).sum()
    rows, columns = (np.asarray(c.get_offsets()) for c in (rows, columns))
    assert rows[:, 0].max() < columns[:, 0].min()
    np.testing.assert_allclose(np.ptp(rows[:, 1]), np.ptp(columns[:, 1]))
    ratio = np.ptp(x[:, 0]) / np.ptp(x[:, 1])
    np.testing.assert_allclose(np.ptp(rows[:, 0]), ratio)
    cost = np.abs(x[:, :1] - x[:, 0])
    solution = jaxsns.solve_quadratic(cost, cost, epsilon=0.1)
    jaxsns.plot.coupling(solution, x, x, ax=_ax())
    with pytest.raises(ValueError, match=r"x_links must have shape \[4, 4\]"):
        jaxsns.plot.coupling(plan, x, y, x_links=links[:2], ax=_ax())
    with pytest.raises(ValueError, match=r"y must have shape \[m, 2\]"):
        jaxsns.plot.coupling(plan, x, x, ax=_ax())


def test_convergence():
    errors = np.array([1.0, np.nan, 0.1, 0.0])
    ax = jaxsns.plot.convergence(errors, tolerance=0.01, ax=_ax())
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 1.0], [3, 0.1]])
    assert ax.get_yscale() == "log"
    assert ax.lines[1].get_ydata()[0] == 0.01
    with pytest.raises(ValueError, match="one shape"):
        jaxsns.plot.convergence(errors, steps=np.arange(3))


def test_marginals_and_potentials():
    solution = _solution()
    rows, columns = solution.marginals()
    ax = jaxsns.plot.marginals(solution, ax=_ax())
    diagonal, dots = ax.lines
    np.testing.assert_array_equal(*diagonal.get_data())
    np.testing.assert_array_equal(dots.get_xdata(), solution.problem.a)
    np.testing.assert_array_equal(dots.get_ydata(), rows)
    assert ax.get_xlabel() == "wanted mass (a)"
    # All wanted masses are equal: against the index.
    ax = jaxsns.plot.marginals(solution, axis=0, ax=_ax())
    wanted, dots = ax.lines
    np.testing.assert_array_equal(dots.get_data(), [np.arange(15), columns])
    np.testing.assert_array_equal(wanted.get_ydata(), solution.problem.b)
    ax = jaxsns.plot.marginals(solution, axis=0, against="wanted", ax=_ax())
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), solution.problem.b)
    with pytest.raises(ValueError, match="against must be 'wanted' or 'index'"):
        jaxsns.plot.marginals(solution, against="mass")
    ax = jaxsns.plot.potentials(solution, x=np.arange(12.0)[::-1], ax=_ax())
    place, f = ax.lines[0].get_data()
    np.testing.assert_array_equal(place, np.arange(11.0))
    np.testing.assert_array_equal(f, solution.f[:0:-1])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), solution.g)
    partial = jaxsns.solve_partial(R.random((11, 14)), share=0.5, epsilon=0.05)
    ax = jaxsns.plot.marginals(partial, axis=0, ax=_ax())
    assert ax.lines[1].get_xdata().size == 14


def test_batch():
    costs = jnp.stack([R.random((5, 6)), np.full((5, 6), np.nan), R.random((5, 6))])
    solution = jax.jit(jax.vmap(lambda c: jaxsns.solve(c, epsilon=0.1)))(costs)
    ax = jaxsns.plot.batch(solution, tolerance=1e-10, ax=_ax())
    assert _labels(ax) == ["CONVERGED: 2 of 3", "NONFINITE: 1 of 3", "tolerance"]
    place, error = ax.lines[0].get_data()
    np.testing.assert_array_equal(place, [0, 2])
    np.testing.assert_array_equal(error, solution.error[jnp.array([0, 2])])
    assert ax.lines[1].get_ydata()[0] < ax.get_ylim()[1]
    with pytest.raises(ValueError, match="got a batch"):
        jaxsns.plot.plan(solution)
    with pytest.raises(ValueError, match="must be a batch"):
        jaxsns.plot.batch(_solution())


def test_refusals():
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(jaxsns.plot.plan)(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="plan must have shape"):
        jaxsns.plot.plan(np.ones(3))
    with pytest.raises(TypeError, match="got list"):
        jaxsns.plot.potentials([1])


def test_new_axes_and_a_clear_error_without_matplotlib(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    ax = jaxsns.plot.plan(np.eye(3))
    pyplot.close(ax.figure)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"jaxsns\[plot\]"):
        jaxsns.plot.convergence(np.ones(3))


def test_convergence_of_a_history_marks_newton_steps():
    cost = R.random((12, 12))
    s = jaxsns.solve(cost, epsilon=1e-3, history=True)
    rows = s.history.rows()
    ax = jaxsns.plot.convergence(s, ax=_ax(), against="passes", tolerance=1e-10)
    line, sweeps, newton = ax.lines[:3]
    np.testing.assert_array_equal(line.get_xdata(), rows["passes"][:-1])
    np.testing.assert_array_equal(line.get_ydata(), rows["error"][:-1])
    swept = rows["kind"] == jaxsns.StepKind.SWEEP
    checked = rows["kind"] == jaxsns.StepKind.CHECK
    stepped = ~swept & ~checked
    np.testing.assert_array_equal(newton.get_ydata(), rows["error"][stepped])
    np.testing.assert_array_equal(sweeps.get_ydata(), rows["error"][swept])
    assert ax.lines[3].get_xydata().tolist() == [[int(s.counts.passes), float(s.error)]]
    falls = np.count_nonzero(np.diff(rows["epsilon"]) < 0)
    assert falls > 0
    assert len(ax.lines) == 4 + falls + 1
    assert _labels(ax) == [
        "sweep", "Newton step", "error of the solution", "epsilon falls", "tolerance",
    ]  # fmt: skip
    assert "passes" in ax.get_xlabel()
    with pytest.raises(ValueError, match="against must be one of 'step'"):
        jaxsns.plot.convergence(s.history, against="time")
    with pytest.raises(ValueError, match="solve with history=True"):
        jaxsns.plot.convergence(jaxsns.solve(cost, epsilon=0.1))


def test_convergence_of_a_divergence_has_a_line_for_each_term():
    x = R.random((12, 2))
    divergence = jaxsns.sinkhorn_divergence(x, x + 0.3, epsilon=0.05, history=True)
    ax = jaxsns.plot.convergence(divergence, ax=_ax())
    assert [k for k in _labels(ax) if k in ("ab", "aa", "bb")] == ["ab", "aa", "bb"]
    assert _labels(ax).count("error of the solution") == 1
    shown = {line.get_label(): line.get_ydata() for line in ax.lines}
    for name, history in divergence.history.items():
        errors = history.rows()["error"][:-1]
        np.testing.assert_array_equal(shown[name], errors[errors > 0])
    quiet = jaxsns.sinkhorn_divergence(x, x + 0.3, epsilon=0.05)
    assert quiet.history is None
    with pytest.raises(ValueError, match="the Divergence has no history"):
        jaxsns.plot.convergence(quiet)


def test_a_large_plan_is_pooled_and_ordered():
    n, m = 1200, 700
    matrix = np.zeros((n, m))
    rows, columns = R.permutation(n), R.permutation(m)
    # Each atom's partners are those at the same height of a hidden order.
    near = np.abs(np.arange(n)[:, None] / n - np.arange(m)[None, :] / m)
    matrix[np.ix_(rows, columns)] = np.maximum(0, 1 - 10 * near)
    image = jaxsns.plot.plan(matrix, ax=_ax()).images[0]
    shown = image.get_array()
    assert shown.shape == (500, 500)
    starts = np.arange(500) * n // 500, np.arange(500) * m // 500
    for i, j in ((0, 0), (7, 499), (250, 123)):
        block = matrix[starts[0][i] : [*starts[0], n][i + 1]]
        block = block[:, starts[1][j] : [*starts[1], m][j + 1]]
        assert shown[i, j] == block.max()
    assert image.get_extent() == [-0.5, m - 0.5, n - 0.5, -0.5]
    ax = jaxsns.plot.plan(matrix, order="barycentric", ax=_ax())
    i, j = np.nonzero(ax.images[0].get_array())
    # In the hidden order, or its reverse, nothing is far from the diagonal.
    assert np.abs(i - j).max() < 0.12 * 500
    assert "in the order of partners" in ax.get_xlabel()
    with pytest.raises(ValueError, match="order must be None or 'barycentric'"):
        jaxsns.plot.plan(matrix, order="rows")


def test_groups_are_the_sums_of_the_plan():
    solution = _solution()
    x, y = np.array(list("aab") * 4), np.arange(15) % 2
    ax = jaxsns.plot.plan(solution, groups_x=x, groups_y=y, ax=_ax())
    plan = np.asarray(solution.plan())
    mass = np.stack([[plan[x == p][:, y == q].sum() for q in (0, 1)] for p in "ab"])
    share = 100 * mass / mass.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(ax.images[0].get_array(), share, rtol=1e-6)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.texts] == [f"{k:.0f}" for k in share.ravel()]
    same = jaxsns.plot.plan(plan, groups_x=x, groups_y=y, ax=_ax())
    np.testing.assert_allclose(same.images[0].get_array(), share, rtol=1e-5)
    with pytest.raises(ValueError, match="go together"):
        jaxsns.plot.plan(solution, groups_x=x)
    with pytest.raises(ValueError, match=r"groups_y must have shape \[m\] = \[15\]"):
        jaxsns.plot.plan(solution, groups_x=x, groups_y=x)


def test_points_of_many_dimensions_are_refused_before_a_plan_is_made(monkeypatch):
    cloud = jaxsns.PointCloud(R.random((12, 3)), R.random((15, 3)))
    solution = jaxsns.solve(cloud, epsilon=0.05)
    monkeypatch.setattr(jaxsns.Solution, "plan", lambda self: 1 / 0)
    with pytest.raises(ValueError, match=r"lines are drawn in the plane.*principal"):
        jaxsns.plot.lines(solution)
