"""One program a setting: a batch of drilled problems under `jit` and `vmap`."""

import functools
from typing import NamedTuple

import jax
import numpy as np

import jaxsns
from experiments.drills import problems
from experiments.drills.problems import Lanes, Setting

# Sweeps that may not do, on purpose: a limit that is met is an honest end as well.
MOST_STEPS = {"sinkhorn": 2000, "symmetric": 2000}


class Answers(NamedTuple):
    """What came back, as NumPy arrays with the lanes on the first axis."""

    f: np.ndarray
    g: np.ndarray
    error: np.ndarray
    tolerance: np.ndarray
    status: np.ndarray
    value: np.ndarray
    primal: np.ndarray
    sweeps: np.ndarray


def answers_of(s: jaxsns.Solution) -> Answers:
    """What the judge looks at."""
    return Answers(
        s.f,
        s.g,
        s.error,
        s.tolerance,
        s.status,
        s.value,
        s.primal_value,
        s.counts.sweeps,
    )


def geometry_of(setting: Setting, cost, x, y):
    """Costs of one lane, as the library takes them."""
    if setting.geometry == "streamed":
        return jaxsns.PointCloud(x, y, streamed=True)
    if setting.geometry == "grid":
        sizes = [problems.side(size) for size in setting.shape]
        axes = [tuple(v[: s[k], k] for k in (0, 1)) for v, s in zip((x, y), sizes)]  # noqa: B905
        return jaxsns.Grid(*axes)
    return cost


def _one(setting: Setting, cost, a, b, epsilon, rho_a, rho_b, x, y, init=None):
    s = jaxsns.solve(
        geometry_of(setting, cost, x, y),
        a,
        b,
        epsilon=epsilon,
        rho_a=rho_a,
        rho_b=rho_b,
        method=setting.method,
        max_steps=MOST_STEPS.get(setting.method),
        init=init,
    )
    return answers_of(s)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(setting: Setting, axes, *arguments):
    return jax.vmap(functools.partial(_one, setting), in_axes=axes)(*arguments)


def solve(setting: Setting, lanes: Lanes, init=None) -> Answers:
    """Solve all lanes in one call."""
    cost, epsilon = lanes.cost, lanes.epsilon
    axes = [0 if v is not None else None for v in lanes[1:]] + [0 if init else None]
    if setting.geometry == "shared":
        cost, epsilon, axes[0], axes[3] = cost[0], epsilon[0], None, None
    if lanes.x is not None:
        cost, axes[0] = None, None
    out = _run(setting, tuple(axes), cost, lanes.a, lanes.b, epsilon, *lanes[5:], init)
    return Answers(*(np.asarray(v) for v in out))


def alone(setting: Setting, lanes: Lanes) -> Answers:
    """Solve the only lane there is as a user does: outside `jit`, values known."""
    own = (None if v is None else v[0] for v in lanes[1:])
    return Answers(*(np.asarray(v)[None] for v in _one(setting, *own)))
