"""Derivative of a converged barycentre on a fixed support.

At the optimum (see `solvers.bregman`), with A_k and B_k the row and column sums of
P_k as diagonal matrices, and d rows_k and d cols_k what costs and epsilon change of
them at fixed potentials,

    (A_k df_k + P_k dg_k) / epsilon + d rows_k = da_k
    (P_k^T df_k + B_k dg_k) / epsilon + d cols_k = db
    sum_k w_k dg_k = - sum_k dw_k g_k

Each df_k is eliminated, which leaves S_k = B_k - P_k^T A_k^-1 P_k as in
`schur`, here scaled by the masses b of the barycentre, which all k share:

    N_k u_k = z + v_k,   sum_k w_k u_k = h,   N_k = b^-1/2 S_k b^-1/2 + s s^T

for u_k = b^1/2 dg_k and z = epsilon b^-1/2 db, where s = b^1/2 / norm pins the gauge.
With M = sum_k w_k N_k^-1 this is M z = h - sum_k w_k N_k^-1 v_k. M s = s, so that
the part of db along b is that of the totals alone.
"""

import jax
import jax.numpy as jnp

from jaxsns.barycentres import bregman
from jaxsns.barycentres.bregman import Measures, weighted_sum
from jaxsns.hessian.schur import inverse_root
from jaxsns.linear import cholesky, lapack
from jaxsns.numerics import default_shift, machine_epsilon, matmul
from jaxsns.problem import dual


def _matrices(plans: jax.Array, mass: jax.Array) -> jax.Array:
    """N_k [K, m, m]; columns without mass become columns of the identity."""
    root = jnp.where(mass > 0, jnp.sqrt(jnp.where(mass > 0, mass, 1)), 0)
    pin = root / jnp.sqrt(jnp.sum(mass))
    safe = jnp.where(mass > 0, mass, 1)

    def one(plan):
        left = inverse_root(jnp.sum(plan, axis=1))
        scaled = left[:, None] * plan * inverse_root(mass)[None, :]
        diagonal = jnp.where(mass > 0, jnp.sum(plan, axis=0) / safe, 1)
        matrix = jnp.diag(diagonal) - matmul(scaled.T, scaled)
        return matrix + pin[:, None] * pin[None, :]

    return jax.vmap(one)(plans)


def _solve_coupled(weights: jax.Array, matrices: jax.Array, h: jax.Array, v: jax.Array):
    """Solve sum_k w_k u_k = h and N_k u_k = z + v_k: (z [m], u [K, m]).

    Through `custom_linear_solve`, so that derivatives of any order and mode need
    products with the matrices only.
    """
    times = jax.vmap(matmul)
    refinements = 1 if machine_epsilon(h.dtype) < 1e-12 else 3

    def product(x):
        z, u = x
        return weighted_sum(weights, u), times(matrices, u) - z[None, :]

    def transposed(x):
        p, q = x
        return -jnp.sum(q, axis=0), weights[:, None] * p[None, :] + times(matrices, q)

    def inverted():
        shift = default_shift(matrices.dtype)
        unit = jnp.eye(matrices.shape[1], dtype=matrices.dtype)
        inverse = lambda matrix: lapack.cholesky_inverse(matrix + shift * unit)
        inverses = jax.vmap(inverse)(matrices)
        mean = jnp.sum(weights[:, None, None] * inverses, axis=0)
        return inverses, cholesky.factorise((mean + mean.T) / 2)

    def refined(once, apply, rhs):
        # The shift is refined away in all modes well above it, as in `cholesky`.
        x = once(*rhs)
        for _ in range(refinements):
            left = jax.tree.map(jnp.subtract, rhs, apply(x))
            x = jax.tree.map(jnp.add, x, once(*left))
        return x

    def solve(_, rhs):
        inverses, factor = inverted()

        def once(h, v):
            known = weighted_sum(weights, times(inverses, v))
            z = lapack.cholesky_solve(factor, h - known)
            return z, times(inverses, v + z[None, :])

        return refined(once, product, rhs)

    def transpose_solve(_, rhs):
        inverses, factor = inverted()

        def once(s, t):
            p = lapack.cholesky_solve(factor, s + jnp.sum(times(inverses, t), axis=0))
            return p, times(inverses, t - weights[:, None] * p[None, :])

        return refined(once, transposed, rhs)

    return jax.lax.custom_linear_solve(product, (h, v), solve, transpose_solve)


@jax.custom_jvp
def attach(measures: Measures, f: jax.Array, g: jax.Array, mass: jax.Array):
    """Return f [K, n], g [K, m] and mass [m] unchanged, with their derivatives.

    In an arbitrary gauge that keeps sum_k w_k g_k = 0: apply `bregman.gauge_shift`
    after it. Changes of masses with unequal totals are projected on equal ones, the
    weighted mean of theirs. Forward, reverse and higher modes.
    Cost: O(K (m^3 + n m^2)) time, and 2 K m^2 numbers beside the plans.
    """
    return f, g, mass


@attach.defjvp
def _attach_jvp(primals, tangents):
    measures = primals[0]
    change: Measures = tangents[0]
    # The attached ones, not the raw ones: higher derivatives need it.
    f, g, mass = attach(*primals)
    weights, epsilon = measures.weights, measures.epsilon

    def surplus(q: Measures):
        rows, columns = bregman.each(dual.marginals, q, mass, f, g)
        # An atom without mass stays without: its potential is -inf.
        return rows - jnp.where(measures.masses > 0, q.masses, 0), columns

    _, (top, bottom) = jax.jvp(surplus, (measures,), (change,))
    top, bottom = -epsilon * top, -epsilon * bottom
    plans = bregman.each(dual.plan, measures, mass, f, g)
    rows = jnp.sum(plans, axis=2)
    inverse_rows = inverse_root(rows) ** 2
    scale = inverse_root(mass)
    root = mass * scale
    direction = root / jnp.sqrt(jnp.sum(mass))

    def project(vector):
        return vector - direction * jnp.dot(direction, vector)

    v = bottom - jax.vmap(matmul)(inverse_rows * top, plans)
    v = jax.vmap(project)(scale[None, :] * v)
    moved = weighted_sum(change.weights, g)
    matrices = _matrices(plans, mass)
    z, u = _solve_coupled(weights, matrices, project(-root * moved), v)
    dg = scale[None, :] * u
    # What is left of this sum is rounding, and columns whose mass has underflowed.
    dg = dg - (weighted_sum(weights, dg) + moved)[None, :]
    df = inverse_rows * (top - jax.vmap(matmul)(plans, dg))
    added = jnp.where(measures.masses > 0, change.masses, 0)
    total = jnp.dot(weights, jnp.sum(added, axis=1))
    db = root * project(z) / epsilon + mass * (total / jnp.sum(mass))
    return (f, g, mass), (df, dg, db)
