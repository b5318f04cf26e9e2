"""Lanes with costs of their own that sweep side by side, before each goes on alone.

A sweep of a problem of 128 x 128 takes a few microseconds; with the operations around
it, one problem after another, several times that. All lanes of a chunk at once share
these.
"""

import functools

import jax
import jax.numpy as jnp

from jaxsns.geometry import Dense
from jaxsns.numerics import finite_minus_inf
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.solvers.batched import joint_sinkhorn
from jaxsns.solvers.batched.joint_sinkhorn import Kernels, Pairs, Swept

PATIENCE = 90.0  # sweeps, predicted: what a lane alone takes


def run(problem: Problem, pairs: Pairs, f: jax.Array | None) -> Swept:
    """Sweep lanes, the first axis of a problem's leaves, from f [lanes, n] or zero."""
    problem = jax.vmap(lambda p: p.formed())(problem)
    geometry = problem.geometry
    assert isinstance(geometry, Dense)
    base = jnp.zeros_like(pairs.a) if f is None else f
    if f is None and problem.dtype == jnp.float32:
        # A kernel of potentials 0 loses what counts where epsilon is small: at 0.005 of
        # the mean cost all of 64 lanes went on alone, with this one 10.
        least = lambda geometry: jnp.min(geometry.entries, axis=1)
        base = jax.vmap(least)(geometry)
    base = jnp.where(pairs.a > 0, base, finite_minus_inf(base.dtype))
    absorb = lambda geometry, f, epsilon: geometry.absorb(f, epsilon)
    kernel, top = jax.vmap(absorb)(geometry, base, problem.epsilon)
    kernels = Kernels(kernel.matrix, base, top, problem.epsilon[:, None])
    swept = joint_sinkhorn.sweep(kernels, pairs, None, PATIENCE)
    select = lambda sure, u, v: jax.tree.map(functools.partial(jnp.where, sure), u, v)
    near = pairs.active & (swept.error <= 4 * pairs.tolerance)

    def judged():
        f, g, error = jax.vmap(dual.judged)(problem, swept.f, swept.g)
        known = Swept(f, g, error, near, swept.sweeps)
        return jax.vmap(select)(swept.sure | ~near, swept, known)

    return jax.lax.cond(jnp.all(swept.sure | ~near), lambda: swept, judged)
