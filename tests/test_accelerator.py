"""What `experiments.accelerator` counts, judges and writes; CI rehearses all of it."""

import json

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments.accelerator import cases, costs, report


def test_loops_are_counted():
    def inner(v, matrix):
        return jax.lax.fori_loop(0, 3, lambda _, v: jnp.sin(matrix @ v), v)

    def function(matrix, v):
        step = lambda s: jax.lax.cond(jnp.any(s > 1), lambda: s / 2, lambda: s) + 1
        going = lambda s: jnp.max(s) < 9
        return jax.lax.while_loop(going, lambda s: inner(step(s), matrix), v)

    shapes = (
        jax.ShapeDtypeStruct((8, 8), jnp.float32),
        jax.ShapeDtypeStruct((8,), jnp.float32),
    )
    program, outer, products = costs.loops(function, *shapes)
    assert (program.depth, outer.depth, products.depth) == (0, 1, 2)
    assert (program.kernels, products.kernels) == (0, 1)
    assert program.predicates == products.predicates == 0
    assert outer.predicates == 2  # its own, and a branch
    np.testing.assert_allclose(products.mib * 2**20, 4 * (64 + 8 + 8))


def test_the_judge_agrees_with_the_solver():
    cost, (x, y) = cases.costs(1, 12)[0], cases.clouds(12)
    solution = jaxsns.solve(cost, epsilon=0.05, max_steps=2)
    error = cases.matrix_error(cost, solution.f, solution.g, 0.05)
    np.testing.assert_allclose(error, solution.error, rtol=1e-3)
    solution = jaxsns.solve(jaxsns.PointCloud(x, y), epsilon=0.5, max_steps=2)
    error = cases.cloud_error(x, y, solution.f, solution.g, 0.5)
    np.testing.assert_allclose(error, solution.error, rtol=1e-3)


def test_the_page_tells_what_failed_and_was_left_out(tmp_path):
    rows = cases.Rows(tmp_path / "rows")
    rows.attempt("a case", "us", lambda: {"seconds": 0.5})
    rows.attempt("a case", "us", lambda: 1 / 0)
    kept = list(map(json.loads, (tmp_path / "rows").read_text().splitlines()))
    environment = costs.record.environment()
    results = {
        "environment": environment,
        "rehearsal": True,
        "ott": "none",
        "seconds": 1.0,
        "parts": [{"part": "dense", "who": "theirs", "rows": kept}],
        "skipped": [["batches (theirs)", "no time was left"]],
    }
    text = report.text(results)
    assert "| a case | us" in text
    assert "ZeroDivisionError" in text
    assert "no time was left" in text
    assert report.failures(results)
    assert not report.failures(results, ours=True)
