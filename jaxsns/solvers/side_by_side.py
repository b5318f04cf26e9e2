"""Lanes with costs of their own that sweep side by side, before each goes on alone.

A pass and a sweep of a problem of 128 x 128 take a few microseconds and one core; with
the operations around them, one problem after another, several times that. All lanes of
a chunk at once take the work alone, on all cores.
"""

import jax
import jax.numpy as jnp

from jaxsns import dual
from jaxsns.geometry import Dense
from jaxsns.numerics import far_below
from jaxsns.problem import Problem
from jaxsns.solvers import shared
from jaxsns.solvers.shared import Kernels, Pairs, Swept

PATIENCE = 40.0  # sweeps, predicted: what a lane alone takes


def run(problem: Problem, pairs: Pairs, f: jax.Array | None) -> Swept:
    """Sweep lanes, the first axis of a problem's leaves, from f [n, lanes] or zero."""
    problem = jax.vmap(lambda p: p.formed())(problem)
    geometry = problem.geometry
    assert isinstance(geometry, Dense)
    base = jnp.zeros_like(pairs.a) if f is None else f
    base = jnp.where(pairs.a > 0, base, far_below(base.dtype))
    absorb = lambda geometry, f, epsilon: geometry.absorb(f, epsilon)
    kernel, top = jax.vmap(absorb)(geometry, base.T, problem.epsilon)
    kernels = Kernels(kernel.matrix, base, top.T, problem.epsilon)
    swept = shared.sweep(kernels, pairs, None, PATIENCE)
    near = pairs.active & (swept.error <= 4 * pairs.tolerance)

    def judged():
        f, g, error = jax.vmap(dual.judged)(problem, swept.f.T, swept.g.T)
        known = Swept(f.T, g.T, error, near, swept.sweeps)
        return jax.tree.map(lambda u, v: jnp.where(swept.sure, u, v), swept, known)

    return jax.lax.cond(jnp.all(swept.sure | ~near), lambda: swept, judged)
