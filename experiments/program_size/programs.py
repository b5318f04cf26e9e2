"""The programs that are measured: a name, a function, shapes of its arguments."""

import jax
import jax.numpy as jnp
from jax import ShapeDtypeStruct as Shape

import jaxsns


def _solve(cost, **options):
    return jaxsns.solve(cost, epsilon=0.01, **options)


def _unbalanced(cost):
    return _solve(cost, rho_a=1.0, rho_b=1.0).value


def _divergence(x, y):
    return jaxsns.sinkhorn_divergence(x, y, epsilon=0.01).value


def _square_of_plan(solution):
    return jnp.sum(solution.plan() ** 2)


def _sum_of_squares(x):
    return jnp.sum(x**2)


def _fixed(cost):
    return _solve(cost, early_stop=False, max_steps=100).f


def _streamed(x, y):
    cloud = jaxsns.PointCloud(x, y, streamed=True)
    return jaxsns.solve(cloud, epsilon=0.1)


def _partial(cost):
    solution = jaxsns.solve_partial(cost, share=0.5, epsilon=0.01)
    return _square_of_plan(solution)


def _grid(x, y):
    return jaxsns.solve(jaxsns.Grid((x, y)), epsilon=0.01).value


def _of(shape, dtype=jnp.float64):
    return Shape(shape, dtype)


COST = (_of((400, 500)),)
BATCH = (_of((16, 90, 100)),)
TINY = (_of((1000, 4, 4)),)
CLOUDS = (_of((256, 2)), _of((256, 2)))
STREAMED = (_of((9000, 3), jnp.float32), _of((9000, 3), jnp.float32))
AXES = (_of((64,), jnp.float32), _of((64,), jnp.float32))

value = lambda cost: _solve(cost).value
of_f = lambda cost: _sum_of_squares(_solve(cost).f)

PROGRAMS = {
    "value": (value, COST),
    "gradient of the value": (jax.grad(value), COST),
    'method="sinkhorn"': (lambda c: _solve(c, method="sinkhorn").value, COST),
    "fixed number of sweeps": (_fixed, COST),
    "gradient of f": (jax.grad(of_f), COST),
    "gradient of the plan": (jax.grad(lambda c: _square_of_plan(_solve(c))), COST),
    "gradient of the unbalanced value": (jax.grad(_unbalanced), COST),
    "gradient of the divergence": (jax.grad(_divergence), CLOUDS),
    "vmap, value": (jax.vmap(value), BATCH),
    "vmap, gradient of f": (jax.vmap(jax.grad(of_f)), BATCH),
    "vmap, 1000 x (4 x 4)": (jax.vmap(value), TINY),
    "partial, gradient of the plan": (jax.grad(_partial), COST),
    "soft_sort, gradient": (
        jax.grad(lambda v: _sum_of_squares(jaxsns.soft_sort(v))),
        (_of((400,)),),
    ),
    "streamed, value": (lambda x, y: _streamed(x, y).value, STREAMED),
    "streamed, gradient of f": (
        jax.grad(lambda x, y: _sum_of_squares(_streamed(x, y).f)),
        STREAMED,
    ),
    "grid 64 x 64, value": (_grid, AXES),
}
