"""True error after each number of iterations, for the paper's plot.

SNS is stepped by its public `init` and `update`. The other methods are run afresh
with a growing step limit: what is plotted is what such a run would have returned.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns
from experiments import problems, record
from jaxsns.solvers import sns

History = list[tuple[int, float]]  # iterations (sweeps and Newton steps), true error


def of_sns(
    problem: problems.Problem, epsilon: float, options: jaxsns.SNSOptions, limit: int
) -> History:
    """Step published SNS; the warm-up is recorded ever more rarely."""
    made = jaxsns.make_problem(*problem, epsilon=epsilon)
    step = jax.jit(lambda state: sns.update(made, options, state))
    state = sns.init(made)
    history = []
    while int(state.status) == jaxsns.Status.RUNNING and int(state.step) < limit:
        state = step(state)
        iterations = int(state.step)
        warming = iterations <= int(options.warm_up)
        if not warming or iterations < 20 or iterations % 20 == 0:
            error = record.true_error(*problem, state.f, state.g, epsilon)
            history.append((iterations, error))
    return history


def of_limits(
    problem: problems.Problem, epsilon: float, tolerance: float, method: Any, last: int
) -> History:
    """Run with limits up to the number of sweeps that the whole solve needs."""
    cost, a, b = (jnp.asarray(x) for x in problem)
    limits = np.unique(np.geomspace(1, last, 40).round().astype(int))
    history = []
    for limit in limits:
        end = jaxsns.solve(
            cost,
            a,
            b,
            epsilon=epsilon,
            tolerance=tolerance,
            method=method,
            max_steps=int(limit),
        )
        iterations = int(end.counts.sweeps) + int(end.counts.newton_steps)
        error = record.true_error(*problem, end.f, end.g, epsilon)
        history.append((iterations, error))
    return history
