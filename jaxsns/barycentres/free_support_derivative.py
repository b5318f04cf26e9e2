"""Derivative of a barycentre with free support: of the fixed point Y = T(Y, theta).

    T(Y)_j = sum_k w_k (sum_i P_k,ij points_k,i) / b_j

It solves (I - T_Y) dY = T_theta dtheta. T_Y is symmetric in the scalar product with
weights b, since diag(b) (Y - T(Y)) is the gradient of F / 2, F the weighted sum of the
transport values; I - T_Y is positive definite at a fixed point that attracts.
Conjugate gradients solve it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import PointCloud
from jaxsns.hessian.schur import inverse_root
from jaxsns.implicit import potentials as implicit
from jaxsns.linear.conjugate_gradient import conjugate_gradient
from jaxsns.numerics import machine_epsilon, matmul
from jaxsns.problem import dual, gauge
from jaxsns.problem.problem import Problem


class Clouds(NamedTuple):
    """K weighted clouds and the masses of the barycentre, arrays of one dtype."""

    points: jax.Array  # [K, n, d]
    masses: jax.Array  # [K, n]
    weights: jax.Array  # [K], total 1
    b: jax.Array  # [m]
    epsilon: jax.Array  # []


def mean(clouds: Clouds, images: jax.Array) -> jax.Array:
    """[m, d] weighted mean of the projections [K, m, d]."""
    return jnp.sum(clouds.weights[:, None, None] * images, axis=0)


def attached(clouds: Clouds, y: jax.Array, f: jax.Array, g: jax.Array):
    """Potentials with derivatives in clouds and y, and projections: all [K, ...]."""

    def one(x, a, f, g):
        problem = Problem(PointCloud(x, y), a, clouds.b, clouds.epsilon)
        f, g = implicit.attach(problem, f, g)
        f, g = gauge.with_gauge(problem, f, g)
        plan = dual.plan(problem, f, g)
        columns = jnp.sum(plan, axis=0)
        columns = jnp.where(columns > 0, columns, 1)
        return f, g, matmul(plan.T, x) / columns[:, None]

    return jax.vmap(one)(clouds.points, clouds.masses, f, g)


def _conjugate_gradients(product, rhs: jax.Array) -> jax.Array:
    """Solve A x = rhs, [m, d]; NaN if it fails.

    A product with x cannot be known better than to its rounding: a residual of that
    size is none, however small the right side is.
    """
    unit = machine_epsilon(rhs.dtype)
    scale = jnp.max(jnp.abs(rhs))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    flat = (rhs / scale).ravel()
    apply = lambda v: product(v.reshape(rhs.shape)).ravel()
    steps = 4 * flat.shape[0] + 100
    x = conjugate_gradient(apply, flat, lambda v: v, 10 * unit, steps).x
    left = jnp.linalg.norm(flat - apply(x))
    rounding = 100 * unit * jnp.linalg.norm(x)
    x = jnp.where(left <= unit**0.5 * jnp.linalg.norm(flat) + rounding, x, jnp.nan)
    return x.reshape(rhs.shape) * scale


@jax.custom_jvp
def attach(clouds: Clouds, y: jax.Array, f: jax.Array, g: jax.Array):
    """Return the support y [m, d] unchanged, with the derivative of the fixed point.

    Rows without mass do not move. Cost: some tens of products with T_Y (more near a
    support that is about to split), each a solve with K matrices, see `implicit`.
    """
    return y


@attach.defjvp
def _attach_jvp(primals, tangents):
    clouds, _, f, g = primals
    y = attach(*primals)

    def image(clouds, y):
        return mean(clouds, attached(clouds, y, f, g)[2])

    inverse = inverse_root(clouds.b)[:, None]
    root = clouds.b[:, None] * inverse
    _, direct = jax.jvp(lambda c: image(c, y), (clouds,), (tangents[0],))
    _, along = jax.linearize(lambda v: image(clouds, v), y)
    moved = control.custom_linear_solve(
        lambda u: u - root * along(inverse * u),
        root * direct,
        _conjugate_gradients,
        symmetric=True,
    )
    return y, inverse * moved
