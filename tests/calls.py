"""Every public function on one small problem, for tests of what all have in common.

A call is a function of the data and gives a dict of arrays; what needs the same solve
is one call, since most of the time is compilation. `padded` data has atoms without
mass and a forbidden pair; `plain` data has neither, and nothing in it is infinite.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxsns

SIZE = 5
EPSILON = 0.1  # a literal: XLA multiplies by 10 where it is a constant


class Data(NamedTuple):
    cost: jax.Array  # [n, n]
    x: jax.Array  # [n, 2]
    y: jax.Array  # [n, 2]
    a: jax.Array  # [n]
    b: jax.Array  # [n]
    where: jax.Array  # [n] bool
    values: jax.Array  # [n]
    labels: jax.Array  # [n] int32


def data(padded, dtype=np.float32):
    r = np.random.default_rng(1)
    cost, x, y = r.random((SIZE, SIZE)), r.random((SIZE, 2)), r.random((SIZE, 2))
    a, b = np.full(SIZE, 0.2), np.array([0.125, 0.25, 0.25, 0.125, 0.25])
    if padded:
        cost[0, 1] = cost[3] = np.inf  # a pair, and all pairs of a row without mass
        a, b = np.array([0.5, 0.25, 0.25, 0, 0]), np.array([0.5, 0.25, 0.25, 0, 0])
    labels = np.array([0, 0, 2, 0, 1], np.int32)
    arrays = [cost, x, y, a, b, a > 0, r.random(SIZE), labels]
    numbers = [jnp.asarray(v, dtype) for v in arrays[:5]]
    where, values = jnp.asarray(arrays[5]), jnp.asarray(arrays[6], dtype)
    return Data(*numbers, where, values, jnp.asarray(labels))


def _parts(solution):
    """What the functions of a solution give that need no more than it."""
    pairs = jaxsns.sample_pairs(solution, jax.random.key(0), 16)
    given = jaxsns.sample_pairs(solution, jax.random.key(0), 16, rows="a")
    largest = [jaxsns.largest_entries(solution, 2, axis=axis) for axis in (0, 1)]
    return {
        "status": solution.status,
        "value": solution.value,
        "primal": solution.primal_value,
        "transport": solution.transport_cost,
        "plan": solution.plan(),
        "marginals": solution.marginals(),
        "largest": [(x.matrix.data, x.left_out) for x in largest],
        "argmax": [jaxsns.argmax_matching(solution, axis) for axis in (0, 1)],
        "sampled rows": (pairs[0], given[0]),
        "sampled columns": (pairs[1], given[1]),
    }


def dense(d):
    solution = jaxsns.solve(d.cost, d.a, d.b, epsilon=EPSILON)
    entropy = jaxsns.matching_cross_entropy
    labelled = jaxsns.matching_cross_entropy_with_integer_labels
    return _parts(solution) | {
        "barycentric": [solution.barycentric(p, k) for p, k in ((d.y, 1), (d.x, 0))],
        "apply": [solution.apply(d.x, axis) for axis in (0, 1)],
        "entropy": [entropy(solution, solution.plan(), axis=k) for k in (0, 1)],
        "labelled": labelled(solution, d.labels, where=d.where),
        "feasible": jaxsns.round_to_feasible(solution.plan(), d.a, d.b),
        "permutation": jaxsns.round_to_permutation(solution.plan()),
    }


def dense_gradient(d):
    def f(cost, x):
        solution = jaxsns.solve(cost, d.a, d.b, epsilon=EPSILON)
        entropy = jaxsns.matching_cross_entropy(solution, solution.plan())
        return jnp.sum(solution.barycentric(x)) + solution.value + jnp.sum(entropy)

    return {"gradient": jax.grad(f, (0, 1))(d.cost, d.y)}


def unbalanced(d):
    return _parts(jaxsns.solve(d.cost, d.a, d.b, epsilon=EPSILON, rho_a=1.0, rho_b=2.0))


def default_epsilon(d):
    solution = jaxsns.solve(d.cost, d.a, d.b)
    return {"epsilon": solution.epsilon, "plan": solution.plan()}


def sinkhorn(d):
    options = {"epsilon": EPSILON, "method": "sinkhorn", "continuation": False}
    return {"plan": jaxsns.solve(d.cost, d.a, d.b, **options).plan()}


def sns(d):
    solution = jaxsns.solve(d.cost, d.a, d.b, epsilon=EPSILON, method="sns")
    return {"plan": solution.plan()}


def cloud(d, **kind):
    geometry = jaxsns.PointCloud(d.x, d.y, **kind)
    solution = jaxsns.solve(geometry, d.a, d.b, epsilon=EPSILON)
    return _parts(solution) | {
        "map": [jaxsns.transport_map(solution, d.x + 1, axis) for axis in (0, 1)],
        "transform": [jaxsns.c_transform(solution, d.x, axis) for axis in (0, 1)],
        "hard": jaxsns.c_transform(solution, d.x, hard=True),
    }


def grid(d):
    line = jnp.linspace(jnp.zeros_like(d.a[0]), 1, SIZE)
    return _parts(jaxsns.solve(jaxsns.Grid((line,)), d.a, d.b, epsilon=EPSILON))


def partial(d):
    solution = jaxsns.solve_partial(d.cost, d.a, d.b, share=0.5, epsilon=EPSILON)
    return {"plan": solution.plan(), "value": solution.value}


def semi_partial(d):
    solution = jaxsns.solve_partial(
        d.cost, d.a, d.b, share=0.5, epsilon=EPSILON, rho_b=1.0
    )
    return {"plan": solution.plan(), "value": solution.value}


def divergence(d, **options):
    def f(x):
        out = jaxsns.sinkhorn_divergence(x, d.y, d.a, d.b, epsilon=EPSILON, **options)
        return out.value, out.ab.plan()

    (value, plan), slope = jax.value_and_grad(f, has_aux=True)(d.x)
    return {"value": value, "plan": plan, "slope": slope}


def loss(d):
    options = {"where": d.where, "where_targets": d.where, "epsilon": EPSILON}
    return {"loss": jaxsns.transport_loss(d.x, d.y, **options)}


def attention(d):
    options = {"where": d.where, "where_keys": d.where, "epsilon": EPSILON}
    return {"attention": jaxsns.transport_attention(d.x, d.y, d.x, **options)}


def pooling(d):
    return {
        "pooled": jaxsns.transport_pooling(d.x, d.y[:2], where=d.where, epsilon=EPSILON)
    }


def ordering(d, masked=True):
    """Ordering; what does not count is cut off: NaN stands there by design."""
    options = {"where": d.where if masked else None, "epsilon": EPSILON}
    sorted_ = jaxsns.soft_sort(d.values, **options)
    ranks = jaxsns.soft_rank(d.values, **options)
    return {
        "sort": jnp.where(jnp.arange(SIZE) < jnp.sum(d.where), sorted_, 0),
        "rank": jnp.where(d.where, ranks, 0),
        "top": jaxsns.soft_top_k(d.values, 1, **options),
        "quantile": jaxsns.soft_quantile(d.values, 0.5, **options),
    }


def fixed_barycentre(d):
    # A cost of points: forbidden pairs are refused.
    masses = jnp.stack([d.a, d.b])
    out = jaxsns.fixed_support_barycentre(
        jaxsns.PointCloud(d.x, d.y), masses, epsilon=EPSILON
    )
    return {"mass": out.mass, "status": out.status}


def free_barycentre(d):
    points, masses = jnp.stack([d.x, d.y]), jnp.stack([d.a, d.b])
    out = jaxsns.free_support_barycentre(points, masses, d.x[:2], epsilon=EPSILON)
    return {"support": out.support, "status": out.status}


def unrolled(d):
    def f(cost):
        problem = jaxsns.make_problem(cost, d.a, d.b, epsilon=EPSILON)
        f, g = jaxsns.unrolled_sinkhorn(problem, 20)
        real = d.where
        return jnp.sum(jnp.where(real, f, 0)), (jnp.where(real, f, 0), g)

    slope, (f, g) = jax.grad(f, has_aux=True)(d.cost)
    return {"f": f, "g": jnp.where(d.b > 0, g, 0), "slope": slope}


def exact(d):
    out = jaxsns.solve_exact(d.cost, d.a, d.b)
    slope = jax.grad(lambda cost: jaxsns.solve_exact(cost, d.a, d.b).value)(d.cost)
    return {"value": out.value, "gap": out.gap, "plan": out.plan(), "slope": slope}


def sparse(d):
    def f(cost):
        out = jaxsns.solve_sparse(cost, d.a, d.b, gamma=EPSILON)
        return out.value, (out.plan(), out.status)

    (value, (plan, status)), slope = jax.value_and_grad(f, has_aux=True)(d.cost)
    return {"value": value, "plan": plan, "status": status, "slope": slope}


def constrained(d):
    cost = jnp.sum((d.x[:, None] - d.y[None]) ** 2, -1)  # forbidden pairs are refused
    pairs = d.values[:, None] * d.values[None]
    moment = jnp.sum(d.a * d.values) * jnp.sum(d.b * d.values)
    at_least = [(pairs, moment, 2 * moment)]
    out = jaxsns.solve_constrained(cost, at_least, d.a, d.b, epsilon=EPSILON)
    return {"plan": out.plan(), "multipliers": out.multipliers, "status": out.status}


def low_rank(d):
    cloud = jaxsns.PointCloud(d.x, d.y)
    out = jaxsns.solve_low_rank(cloud, d.a, d.b, rank=2, epsilon=EPSILON)
    return {"value": out.value, "plan": out.plan(), "error": out.error}


def penalised(d):
    groups = jaxsns.penalties.GroupLasso(d.labels, 3, 0.1)

    def f(x):
        cloud = jaxsns.PointCloud(x, d.y)
        out = jaxsns.solve_penalised(cloud, groups, d.a, d.b, epsilon=EPSILON)
        return out.value, out.plan()

    (value, plan), slope = jax.value_and_grad(f, has_aux=True)(d.x)
    return {"value": value, "plan": plan, "slope": slope}


def bijection(d):
    def f(x):
        out = jaxsns.solve_bijection(x, d.y, block=3)
        return out.value, out.permutation

    (value, permutation), slope = jax.value_and_grad(f, has_aux=True)(d.x)
    return {"value": value, "permutation": permutation, "slope": slope}


def quadratic(d):
    def f(x):
        own, other = (jaxsns.PointCloud(p, p) for p in (x, d.y))
        out = jaxsns.solve_quadratic(own, other, d.a, d.b, epsilon=EPSILON)
        return out.value, out.plan()

    (value, plan), slope = jax.value_and_grad(f, has_aux=True)(d.x)
    return {"value": value, "plan": plan, "slope": slope}


def small_things(d):
    """Sliced transport, the Monge gap, projections and dustbins."""
    lines = jnp.eye(2, dtype=d.x.dtype)

    def f(x):
        logits = jnp.sum(x[:, None] * d.y[None], -1)
        out = jaxsns.sliced_wasserstein(x, d.y, d.a, d.b, directions=lines)
        matched = jaxsns.dustbin_matching(logits, 0.3, epsilon=EPSILON)
        projected = jaxsns.sinkhorn_projection(logits)
        out += jnp.sum(projected**2) + jaxsns.monge_gap(x, d.y, epsilon=EPSILON)
        return out, (jax.tree.leaves(matched)[0], projected)

    (value, parts), slope = jax.value_and_grad(f, has_aux=True)(d.x)
    moved = jaxsns.sliced_map(d.x, d.y, d.a, d.b, directions=lines)
    return {"value": value, "parts": parts, "slope": slope, "moved": moved}


def debiased(d):
    cost = jnp.sum((d.x[:, None] - d.x[None]) ** 2, -1)
    masses = jnp.stack([d.a, d.b])
    out = jaxsns.debiased_barycentre(cost, masses, epsilon=EPSILON, steps=50)
    return {"mass": out.mass}


CALLS = {
    "dense": dense,
    "dense gradient": dense_gradient,
    "unbalanced": unbalanced,
    "default epsilon": default_epsilon,
    "sinkhorn": sinkhorn,
    "sns": sns,
    "cloud": cloud,
    "streamed": functools.partial(cloud, streamed=True),
    "grid": grid,
    "partial": partial,
    "semi-relaxed partial": semi_partial,
    "divergence": divergence,
    "unbalanced divergence": functools.partial(divergence, rho=1.0),
    "loss": loss,
    "attention": attention,
    "pooling": pooling,
    "ordering": ordering,
    "fixed barycentre": fixed_barycentre,
    "free barycentre": free_barycentre,
    "unrolled": unrolled,
    "exact": exact,
    "sparse": sparse,
    "constrained": constrained,
    "low rank": low_rank,
    "penalised": penalised,
    "bijection": bijection,
    "quadratic": quadratic,
    "small things": small_things,
    "debiased": debiased,
}
