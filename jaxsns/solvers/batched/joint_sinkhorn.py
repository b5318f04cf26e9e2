"""Lanes that sweep together, each with its masses: on one kernel, or each on its own.

A sweep of all lanes is two products for all of them at once: of matrices where the
kernel is one, which take a tenth of the time of as many products with vectors, and else
with one operation's overhead for all. After a few sweeps they have momentum. It is done
while lanes promise to be there soon; those that are not are left to a solve of their
own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import Dense
from jaxsns.numerics import (
    finite_minus_inf,
    inner_tolerance,
    largest_scaling,
    matmul,
    safe_log,
)
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem
from jaxsns.solvers.sinkhorn.acceleration import best_rate

# [D19]
ON_ONE_KERNEL, ON_OWN_KERNELS = 300.0, 90.0  # sweeps predicted, as a lane alone takes
BLOCK = 2  # sweeps between two looks at the errors [D19]
# [D19]
FIRST = 8  # sweeps before a prediction is believed; till then each block is a window
WINDOW = 4  # sweeps over which a decay is measured then [D19]
FEW = 4.0  # sweeps left, as the last ones gained, for which momentum does not pay [D19]
EARLY = 5.0  # sweeps at which twice as many are left as are predicted [D19]


class BatchMarginals(NamedTuple):
    """Masses in lanes."""

    a: jax.Array  # [lanes, n]
    b: jax.Array  # [lanes, m]
    tolerance: jax.Array  # [lanes]
    max_steps: jax.Array  # [lanes] int32
    rounding_share: jax.Array  # [lanes] see `solvers.options`
    active: jax.Array  # [lanes] bool: the others are nobody's concern


class Kernels(NamedTuple):
    """K = exp((base_i - C_ij - top_j) / epsilon), one for all lanes or for each."""

    matrix: jax.Array  # [n, m] or [lanes, n, m]
    base: jax.Array  # [1, n] or [lanes, n] cost
    top: jax.Array  # [1, m] or [lanes, m] cost
    epsilon: jax.Array  # [1, 1] or [lanes, 1]

    def times(self, v: jax.Array) -> jax.Array:
        """K v, [lanes, m] -> [lanes, n]."""
        if self.matrix.ndim == 2:
            return matmul(v, self.matrix.T)
        return matmul(self.matrix, v[:, :, None])[:, :, 0]

    def transpose_times(self, u: jax.Array) -> jax.Array:
        """K^T u, [lanes, n] -> [lanes, m]."""
        if self.matrix.ndim == 2:
            return matmul(u, self.matrix)
        return matmul(u[:, None, :], self.matrix)[:, 0, :]


class JointResult(NamedTuple):
    """What the sweeps left: potentials, and their errors on the kernel."""

    f: jax.Array  # [lanes, n] cost
    g: jax.Array  # [lanes, m] cost
    error: jax.Array  # [lanes]
    sweeps: jax.Array  # [lanes] int32


class _State(NamedTuple):
    u: jax.Array  # [lanes, n] of a lane at rest as it was then
    v: jax.Array  # [lanes, m] columns that fit u
    reach: jax.Array  # [lanes, n] K v, of lanes at work
    speed: jax.Array  # [lanes, n] change of log u by the last sweep
    rate: jax.Array  # [lanes] of the momentum; 0 is none
    error: jax.Array  # [lanes]
    begun: jax.Array  # [lanes] error at the beginning of the window
    sweeps: jax.Array  # [lanes] int32
    live: jax.Array  # [lanes] bool: at work
    step: jax.Array  # [] int32


def _start(pairs: BatchMarginals, kernels: Kernels, f: jax.Array | None):
    """[lanes, n] row scalings of potentials f; 1 where the kernel is too far off."""
    if f is None:
        lanes = 1 if kernels.matrix.ndim == 2 else pairs.a.shape[0]
        return jnp.ones((lanes, pairs.a.shape[1]), pairs.a.dtype)
    real = pairs.a > 0
    x = jnp.where(real, (f - kernels.base) / kernels.epsilon, 0)
    mean = jnp.sum(pairs.a * x, axis=1) / jnp.sum(pairs.a, axis=1)
    x = jnp.where(real, x - mean[:, None], 0)
    fits = jnp.max(jnp.abs(x), axis=1) <= largest_scaling(x.dtype)
    return jnp.exp(jnp.where(fits[:, None], x, 0))


def _error(pairs: BatchMarginals, u: jax.Array, reach: jax.Array) -> jax.Array:
    return jnp.sum(jnp.abs(u * reach - pairs.a), axis=1) / jnp.sum(pairs.a, axis=1)


def _fitted(pairs: BatchMarginals, kernels: Kernels, u: jax.Array):
    """([lanes, m], [lanes, n]) column scalings v that fit u, and K v."""
    v = jnp.where(pairs.b > 0, pairs.b / kernels.transpose_times(u), 0)
    return v, kernels.times(v)


def _block(pairs: BatchMarginals, kernels: Kernels, s: _State):
    """BLOCK sweeps, without logarithms while no lane has momentum.

    A lane without it gets the same either way, whatever the others do. Gives u, v,
    K v and the speed, of lanes at rest too.
    """
    real = pairs.a > 0

    def plain():
        u, v, reach = s.u, s.v, s.reach
        for _ in range(BLOCK):
            u = jnp.where(real, pairs.a / reach, 0)
            v, reach = _fitted(pairs, kernels, u)
        return u, v, reach, s.speed

    def hurried():
        u, v, reach, speed, rate = s.u, s.v, s.reach, s.speed, s.rate[:, None]
        for _ in range(BLOCK):
            change = jnp.log(jnp.where(real, pairs.a / (u * reach), 1))
            speed = (1 + rate) ** 2 * change + rate**2 * speed
            speed = jnp.where(rate > 0, speed, 0)
            u = jnp.where(rate > 0, u * jnp.exp(speed), pairs.a / reach)
            u = jnp.where(real, u, 0)
            v, reach = _fitted(pairs, kernels, u)
        return u, v, reach, speed

    return control.cond(jnp.any(s.rate > 0), hurried, plain)


def _sweeps(
    pairs: BatchMarginals, kernels: Kernels, u: jax.Array, patience: float
) -> _State:
    """Sweep each lane until it is there, or promises not to be so before long.

    The first sweeps are plain; momentum is chosen by what they gain, and anew after
    each window. A lane at rest keeps its scalings: what it gets does not depend on
    the others.
    """
    target = inner_tolerance(pairs.tolerance)

    def block(s: _State) -> _State:
        u, v, reach, speed = _block(pairs, kernels, s)
        error = _error(pairs, u, reach)
        step = s.step + BLOCK
        window = jnp.where(step <= FIRST, BLOCK, WINDOW)
        full = step % window == 0
        decay = (error / s.begun) ** (1 / window.astype(error.dtype))
        few = (s.rate == 0) & (jnp.log(target / error) >= FEW * jnp.log(decay))
        rate = jnp.where(full & ~few, best_rate(s.rate, decay), s.rate)
        # Slow modes show late: what is predicted early is too good.
        now = step.astype(error.dtype)
        left = jnp.log(target / error) / jnp.log(rate)
        soon = (left >= 0) & (now + left * (1 + EARLY / now) <= patience)
        lost = ~jnp.isfinite(error) | (step + BLOCK > pairs.max_steps)
        hopeless = lost | (full & (step >= FIRST) & ~soon)
        # As good as rounding lets it be, which momentum would only carry away.
        hopeless |= full & (error <= pairs.tolerance) & (decay >= 1)
        return _State(
            u=jnp.where(s.live[:, None], u, s.u),
            v=jnp.where(s.live[:, None], v, s.v),
            reach=reach,
            speed=speed,
            rate=jnp.where(s.live, rate, 0),
            error=jnp.where(s.live, error, s.error),
            begun=jnp.where(full, error, s.begun),
            sweeps=s.sweeps + jnp.where(s.live, BLOCK, 0),
            live=s.live & ~(error <= target) & ~hopeless,
            step=step,
        )

    # One line where all lanes begin at the same scalings: it is spread afterwards.
    v, reach = _fitted(pairs, kernels, u)
    u = jnp.broadcast_to(u, pairs.a.shape)
    error = _error(pairs, u, reach)
    live = pairs.active & ~(error <= target) & (pairs.max_steps >= BLOCK)
    start = _State(
        u=u,
        v=v,
        reach=reach,
        speed=jnp.zeros_like(u),
        rate=jnp.zeros_like(error),
        error=error,
        begun=error,
        sweeps=jnp.zeros(error.shape, jnp.int32),
        live=live,
        step=jnp.asarray(0, jnp.int32),
    )
    return control.while_loop(lambda s: jnp.any(s.live), block, start)


def sweep(
    kernels: Kernels, pairs: BatchMarginals, f: jax.Array | None, patience: float
) -> JointResult:
    """Sweep problems from row potentials f [lanes, n], or from those of the kernels."""
    sizes = [
        jnp.max(jnp.where(real, jnp.abs(x), 0), axis=1)
        for real, x in ((pairs.a > 0, kernels.base), (pairs.b > 0, kernels.top))
    ]
    size = jnp.maximum(*sizes) / kernels.epsilon[:, 0]
    floor = pairs.rounding_share * dual.rounding_floor(size)
    pairs = pairs._replace(tolerance=jnp.maximum(pairs.tolerance, floor))
    end = _sweeps(pairs, kernels, _start(pairs, kernels, f), patience)
    x = safe_log(jnp.where(pairs.a > 0, end.u, 1))
    y = safe_log(jnp.where(pairs.b > 0, end.v, 1))
    f = kernels.base + kernels.epsilon * x
    g = kernels.epsilon * y - kernels.top
    return JointResult(f, g, end.error, end.sweeps)


def on_one_kernel(
    geometry: Dense, epsilon: jax.Array, pairs: BatchMarginals, f: jax.Array | None
) -> JointResult:
    """Sweep problems with one cost and one epsilon, from f [lanes, n] or from zero.

    The kernel is built from the least cost of each row: every row and every column
    of it has an entry 1. If that is in a row or column where a problem has no mass, its
    own entries may be too small: the check of its potentials tells.
    """
    base = jnp.min(geometry.entries, axis=1)
    kernel, top = geometry.absorb(base, epsilon)
    kernels = Kernels(kernel.matrix, base[None], top[None], epsilon[None, None])
    return sweep(kernels, pairs, f, ON_ONE_KERNEL)


def on_own_kernels(
    problem: Problem, pairs: BatchMarginals, f: jax.Array | None
) -> JointResult:
    """Sweep problems with costs of their own, side by side, from f [lanes, n] or zero.

    A sweep of a problem of 128 x 128 takes a few microseconds; with the operations
    around it, one problem after another, several times that. A chunk shares these.
    """
    problem = jax.vmap(lambda p: p.formed())(problem)
    geometry = problem.geometry
    assert isinstance(geometry, Dense)
    base = jnp.zeros_like(pairs.a) if f is None else f
    base = jnp.where(pairs.a > 0, base, finite_minus_inf(base.dtype))
    absorb = lambda geometry, f, epsilon: geometry.absorb(f, epsilon)
    kernel, top = jax.vmap(absorb)(geometry, base, problem.epsilon)
    kernels = Kernels(kernel.matrix, base, top, problem.epsilon[:, None])
    return sweep(kernels, pairs, None, ON_OWN_KERNELS)
