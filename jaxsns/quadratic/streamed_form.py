"""The linear problem of a plan where no [n, n] or [n, m] array is formed.

With costs that have factors, x_ik = <l_i, r_k>, the product in the linearised cost is
T_ij = <l_i, W l_j'>, W = sum_kl r_k P_kl r_l'^T: a dot product of points. For squared
distances of points centred by mass, up to terms of rows or of columns alone,

    T_ij = 4 <x_i, Z y_j> + |P| |x_i|^2 |y_j|^2,   Z = sum_kl x_k P_kl y_l^T

so that W is all that is carried. Balanced problems only, whose potentials absorb terms
of rows and of columns.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.geometry import PointCloud
from jaxsns.numerics import machine_epsilon, matmul
from jaxsns.outer.form import Evaluation
from jaxsns.plans.entries import BLOCK
from jaxsns.problem import dual, gauge
from jaxsns.problem.problem import Problem
from jaxsns.quadratic.spaces import LowRank, Matrix, Points
from jaxsns.quadratic.terms import Terms, constant_parts, constant_value


class Side(NamedTuple):
    """Points of one space in the dot product, and what plans are multiplied with."""

    points: jax.Array  # [n, r] l
    basis: jax.Array  # [n, r] r


class Geometry(NamedTuple):
    """A cost |p_i - q_j|^2, and what it lacks to the linearised cost."""

    cloud: PointCloud
    rows: jax.Array  # [n] to be added to the cost, and to f
    columns: jax.Array  # [m] and to g


def _both_points(terms: Terms) -> bool:
    return isinstance(terms.x, Points) and isinstance(terms.y, Points)


def sides(terms: Terms) -> tuple[Side, Side]:
    """Both spaces."""
    out = []
    both = (terms.x, terms.masses.a), (terms.y, terms.masses.b)
    for space, masses in both:
        assert not isinstance(space, Matrix), "that would not be streamed"
        if _both_points(terms) and isinstance(space, Points):
            x = space.centred(masses)
            x = jnp.concatenate([x, jnp.sum(x**2, axis=1, keepdims=True)], axis=1)
            out.append(Side(x, x))
        else:
            factors = space if isinstance(space, LowRank) else space.factors()
            out.append(Side(factors.left, factors.right))
    return out[0], out[1]


def weights(terms: Terms, moments: jax.Array) -> jax.Array:
    """[r, r'] matrix W of the dot product."""
    if not _both_points(terms):
        return moments
    r, s = moments.shape
    out = jnp.zeros_like(moments).at[: r - 1, : s - 1].set(4 * moments[:-1, :-1])
    return out.at[-1, -1].set(jnp.sum(terms.masses.a))


def dot_cloud(left, right, matrix, extra, cloud: PointCloud | None):
    """Geometry of the costs -2 <left_i, matrix right_j> + extra |x_i - y_j|^2.

    The product is half of a squared distance less the squares, so it becomes one of
    points that are stretched to lie together where the product is large.
    Returns the cloud, and what is to be added for rows and columns.
    """
    held = jax.lax.stop_gradient(matrix)
    u, s, _ = jnp.linalg.svd(held, full_matrices=False)
    s = jnp.sqrt(jnp.maximum(s, machine_epsilon(s.dtype) * jnp.max(s)))
    s = jnp.where(s > 0, s, 1)
    p = matmul(left, u * s[None, :])
    q = matmul(right, matmul(matrix.T, u / s[None, :]))
    more = jnp.zeros((), p.dtype)
    rows, columns = more, more
    if cloud is not None:
        weight = extra if cloud.factor is None else extra * cloud.factor
        held = jax.lax.stop_gradient(weight)
        root = jnp.sqrt(jnp.maximum(held, jnp.finfo(held.dtype).tiny))
        x, y = cloud.x, cloud.y  # each around its own mean
        p = jnp.concatenate([p, root * x], axis=1)
        q = jnp.concatenate([q, weight / root * y], axis=1)
        rows = weight * jnp.sum(x**2, axis=1)
        columns = weight * jnp.sum(y**2, axis=1)
    rows = rows - jnp.sum(p**2, axis=1)
    columns = columns - jnp.sum(q**2, axis=1)
    return PointCloud(p, q, streamed=True), rows, columns


def geometry(terms: Terms, moments: jax.Array) -> Geometry:
    """Return the cost of the linear problem of what is carried, [r, r']."""
    x, y = sides(terms)
    cloud = terms.masses.geometry
    linear = cloud if isinstance(cloud, PointCloud) else None
    matrix = 2 * terms.alpha * weights(terms, moments)
    out, rows, columns = dot_cloud(x.points, y.points, matrix, 1 - terms.alpha, linear)
    return Geometry(out, rows, columns)


def problem(terms: Terms, moments: jax.Array) -> Problem:
    """Return the linear problem."""
    given = terms.masses
    return Problem(geometry(terms, moments).cloud, given.a, given.b, given.epsilon)


def potentials(terms: Terms, moments: jax.Array, f: jax.Array, g: jax.Array):
    """Potentials of the linearised cost, from those of `problem`: ([n], [m])."""
    given, alpha = terms.masses, terms.alpha
    _, rows, columns = geometry(terms, moments)
    more = constant_parts(terms)
    rows, columns = rows + more.rows, columns + more.columns
    if _both_points(terms):
        x, y = sides(terms)
        x, y = x.points, y.points
        # Terms of T of rows alone and of columns alone; the constant belongs to both.
        at_x = x[:, -1] * jnp.sum(given.b * y[:, -1])
        at_y = y[:, -1] * jnp.sum(given.a * x[:, -1])
        at_x += moments[-1, -1] / 2 - 2 * matmul(x[:, :-1], moments[:-1, -1:])[:, 0]
        at_y += moments[-1, -1] / 2 - 2 * matmul(y[:, :-1], moments[-1:, :-1].T)[:, 0]
        rows, columns = rows - 4 * alpha * at_x, columns - 4 * alpha * at_y
    return gauge.centre(given, f + rows, g + columns)


class Products(NamedTuple):
    """What one or two passes over a plan show."""

    moments: jax.Array  # [r, r'] what it would carry
    crossed: jax.Array  # [r, r'] the same between the points of the dot product
    own: jax.Array  # [] <T, P>: Q is <p, a> + <q, b> less two of them


def products(terms: Terms, own: Problem, f: jax.Array, g: jax.Array) -> Products:
    """Products of the plan of potentials of a linear problem."""
    given = terms.masses
    low_f, low_g = dual.finite(given, f, g)
    x, y = sides(terms)
    table = [y.basis] if _both_points(terms) else [y.basis, y.points]
    table = jnp.concatenate(table, axis=1)
    formed = own.geometry.formed()
    sums = formed.plan_times(low_f, low_g, given.epsilon, table, 1)
    r = y.basis.shape[1]
    new = matmul(x.basis.T, sums[:, :r])
    if _both_points(terms):
        crossed = new
        spread = jnp.sum(given.a * x.points[:, -1]) * jnp.sum(given.b * y.points[:, -1])
        product = 2 * jnp.sum(given.a) * new[-1, -1] + 2 * spread
        product += 4 * jnp.sum(new[:-1, :-1] ** 2)
    else:
        crossed = matmul(x.points.T, sums[:, r:])
        product = jnp.sum(new * crossed)
    return Products(new, crossed, product)


def evaluate(
    terms: Terms, moments: jax.Array, f: jax.Array, g: jax.Array
) -> Evaluation:
    """What potentials of the linear problem of `moments` show."""
    given, alpha = terms.masses, terms.alpha
    cloud, rows, columns = geometry(terms, moments)
    own = Problem(cloud, given.a, given.b, given.epsilon)
    seen = products(terms, own, f, g)
    constant = constant_value(terms)
    constant += jnp.sum(rows * given.a) + jnp.sum(columns * given.b)
    crossed = jnp.sum(weights(terms, moments) * seen.crossed)
    inner = dual.value(own, f, g)
    value = constant - 2 * alpha * seen.own + 4 * alpha * crossed + inner
    size = jnp.abs(constant) + 4 * alpha * jnp.abs(crossed) + jnp.abs(inner)
    return Evaluation(seen.moments, (moments, f, g), value, size)


def change(terms: Terms, old, new) -> jax.Array:
    """[] L1 difference of two plans (moments, f, g), relative to the mass. One pass."""
    given = terms.masses
    epsilon = given.epsilon

    def parts(plan):
        moments, f, g = plan
        cloud = geometry(terms, moments).cloud
        f, g = dual.finite(given, f, g)
        centre = jnp.mean(cloud.y, axis=0, keepdims=True)
        p, q = cloud.x - centre, cloud.y - centre
        f, g = f - jnp.sum(p**2, axis=1), g - jnp.sum(q**2, axis=1)
        left = jnp.concatenate([2 * p, f[:, None], jnp.ones_like(f)[:, None]], axis=1)
        right = jnp.concatenate([q, jnp.ones_like(g)[:, None], g[:, None]], axis=1)
        return left / epsilon, right

    (left, right), (other_left, other_right) = parts(old), parts(new)
    n, m = given.shape
    size = max(1, min(n, BLOCK // m))
    blocks = -(-n // size)
    index = jnp.minimum(jnp.arange(blocks * size), n - 1).reshape(blocks, size)
    real = (jnp.arange(blocks * size) < n).reshape(blocks, size)

    def block(total, at):
        rows, real = at
        first = jnp.exp(matmul(left[rows], right.T))
        second = jnp.exp(matmul(other_left[rows], other_right.T))
        moved = jnp.where(real[:, None], jnp.abs(first - second), 0)
        return total + jnp.sum(moved), None

    total, _ = control.scan(block, jnp.zeros((), left.dtype), (index, real))
    return total / jnp.sum(given.a)
