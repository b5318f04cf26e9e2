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

from jaxsns import control
from jaxsns.barycentres.measures import Measures, each, weighted_sum
from jaxsns.geometry import Dense
from jaxsns.hessian.schur import inverse_root
from jaxsns.linear import cholesky, lapack
from jaxsns.linear.powers import power_of_two
from jaxsns.numerics import default_shift, machine_epsilon, matmul, vdot
from jaxsns.problem import dual
from jaxsns.problem.problem import Problem

KEPT = 2**25  # numbers of all K inverses that are kept: 256 MB in float64 [D26]


def _scaled(plan: jax.Array, mass: jax.Array):
    """A^-1/2 P b^-1/2 [n, m], and the diagonal and the pin [m] of N_k.

    Columns without mass become columns of the identity.
    """
    some = mass > 0
    safe = jnp.where(some, mass, 1)
    pin = jnp.where(some, jnp.sqrt(safe), 0) / jnp.sqrt(jnp.sum(mass))
    left = inverse_root(jnp.sum(plan, axis=1))
    diagonal = jnp.where(some, jnp.sum(plan, axis=0) / safe, 1)
    return left[:, None] * plan * inverse_root(mass)[None, :], diagonal, pin


def _times(plan: jax.Array, mass: jax.Array, u: jax.Array) -> jax.Array:
    """[m] N_k u."""
    scaled, diagonal, pin = _scaled(plan, mass)
    inner = matmul(scaled.T, matmul(scaled, u))
    return diagonal * u - inner + pin * vdot(pin, u)


def _shifted(plan: jax.Array, mass: jax.Array) -> jax.Array:
    """[m, m] N_k with the shift that lets plans in pieces be factorised."""
    scaled, diagonal, pin = _scaled(plan, mass)
    matrix = jnp.diag(diagonal + default_shift(plan.dtype)) - matmul(scaled.T, scaled)
    return matrix + pin[:, None] * pin[None, :]


def _inverses(measures: Measures, f: jax.Array, g: jax.Array, mass: jax.Array):
    """sum_k w_k N_k^-1 [m, m], and v [K, m] -> N_k^-1 v_k.

    The inverses are kept if there is room for them; else each is formed for the sum,
    and factorised again where it is applied.
    """
    number, m = g.shape

    def matrix(problem, f, g):
        return _shifted(dual.plan(problem, f, g), mass)

    if number * m * m <= KEPT:
        matrices = each(matrix, measures, mass, f, g)
        inverses = jax.vmap(lapack.cholesky_inverse)(matrices)
        mean = jnp.sum(measures.weights[:, None, None] * inverses, axis=0)
        return mean, lambda v: jax.vmap(matmul)(inverses, v)

    def one(k: jax.Array) -> tuple[Problem, jax.Array, jax.Array]:
        cost = measures.costs if measures.shared else measures.costs[k]
        problem = Problem(Dense(cost), measures.masses[k], mass, measures.epsilon)
        return problem, f[k], g[k]

    def add(k: jax.Array, mean: jax.Array) -> jax.Array:
        inverse = lapack.cholesky_inverse(matrix(*one(k)))
        return mean + measures.weights[k] * inverse

    def apply(v: jax.Array) -> jax.Array:
        def solve(x):
            k, v = x
            return lapack.cholesky_solve(cholesky.factorise(matrix(*one(k))), v)

        return jax.lax.map(solve, (jnp.arange(number), v))

    start = jnp.zeros((m, m), g.dtype)
    return control.fori_loop(0, number, add, start), apply


def _solve_coupled(measures: Measures, f, g, mass, h: jax.Array, v: jax.Array):
    """Solve sum_k w_k u_k = h and N_k u_k = z + v_k: (z [m], u [K, m]).

    Through `custom_linear_solve`, so that derivatives of any order and mode need
    products with the matrices only.
    """
    weights = measures.weights
    refinements = 1 if machine_epsilon(h.dtype) < 1e-12 else 3

    def times(u):
        one = lambda problem, f, g, u: _times(dual.plan(problem, f, g), mass, u)
        return each(one, measures, mass, f, g, u)

    def product(x):
        z, u = x
        return weighted_sum(weights, u), times(u) - z[None, :]

    def transposed(x):
        p, q = x
        return -jnp.sum(q, axis=0), weights[:, None] * p[None, :] + times(q)

    def inverted():
        mean, apply = _inverses(measures, f, g, mass)
        return cholesky.factorise((mean + mean.T) / 2), apply

    def refined(once, apply, rhs):
        # The shift is refined away in all modes well above it, as in `cholesky`. What
        # is solved is linear in its right side: of any size, without overflow.
        size = power_of_two(jnp.stack([jnp.max(jnp.abs(r)) for r in rhs]))
        rhs = jax.tree.map(lambda r: r / size, rhs)
        x = once(*rhs)
        for _ in range(refinements):
            left = jax.tree.map(jnp.subtract, rhs, apply(x))
            x = jax.tree.map(jnp.add, x, once(*left))
        return jax.tree.map(lambda x: x * size, x)

    def solve(_, rhs):
        factor, inverse = inverted()

        def once(h, v):
            known = inverse(v)
            z = lapack.cholesky_solve(factor, h - weighted_sum(weights, known))
            return z, known + inverse(jnp.broadcast_to(z, known.shape))

        return refined(once, product, rhs)

    def transpose_solve(_, rhs):
        factor, inverse = inverted()

        def once(s, t):
            known = inverse(t)
            p = lapack.cholesky_solve(factor, s + jnp.sum(known, axis=0))
            spread = weights[:, None] * p[None, :]
            return p, known - inverse(spread)

        return refined(once, transposed, rhs)

    # JAX transposes the solve only if both sides are linear in what is differentiated:
    # one that is constant, as h is if weights are, made it fail with an AssertionError.
    h, v = h + 0 * v[0], v + 0 * h[None, :]
    return control.custom_linear_solve(product, (h, v), solve, transpose_solve)


@jax.custom_jvp
def attach(measures: Measures, f: jax.Array, g: jax.Array, mass: jax.Array):
    """Return f [K, n], g [K, m] and mass [m] unchanged, with their derivatives.

    In an arbitrary gauge that keeps sum_k w_k g_k = 0: apply `bregman.gauge_shift`
    after it. Changes of masses with unequal totals are projected on equal ones, the
    weighted mean of theirs. Forward, reverse and higher modes.
    Cost: O(K (m^3 + n m^2)) time. Memory: `measures.AT_ONCE` entries of plans, or one
    plan, and K m^2 numbers; where these are more than KEPT, 3 m^2 instead, for some
    five times as many factorisations.
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
        rows, columns = each(dual.marginals, q, mass, f, g)
        # An atom without mass stays without: its potential is -inf.
        return rows - jnp.where(measures.masses > 0, q.masses, 0), columns

    def row_sums(problem, f, g):
        return dual.marginals(problem, f, g)[0]

    def rows_times(problem, f, g, x):
        return matmul(dual.plan(problem, f, g), x)

    def columns_times(problem, f, g, x):
        return matmul(x, dual.plan(problem, f, g))

    _, (top, bottom) = jax.jvp(surplus, (measures,), (change,))
    top, bottom = -epsilon * top, -epsilon * bottom
    plans = measures, mass, f, g
    inverse_rows = inverse_root(each(row_sums, *plans)) ** 2
    scale = inverse_root(mass)
    root = mass * scale
    direction = root / jnp.sqrt(jnp.sum(mass))

    def project(vector):
        return vector - direction * vdot(direction, vector)

    v = bottom - each(columns_times, *plans, inverse_rows * top)
    v = jax.vmap(project)(scale[None, :] * v)
    moved = weighted_sum(change.weights, g)
    z, u = _solve_coupled(measures, f, g, mass, project(-root * moved), v)
    dg = scale[None, :] * u
    # What is left of this sum is rounding, and columns whose mass has underflowed.
    dg = dg - (weighted_sum(weights, dg) + moved)[None, :]
    df = inverse_rows * (top - each(rows_times, *plans, dg))
    added = jnp.where(measures.masses > 0, change.masses, 0)
    total = vdot(weights, jnp.sum(added, axis=1))
    db = root * project(z) / epsilon + mass * (total / jnp.sum(mass))
    return (f, g, mass), (df, dg, db)
