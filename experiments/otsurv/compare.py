"""Our layer and the published one: same plan, same gradient, at what cost?"""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import record
from experiments.otsurv import layer, unrolled
from experiments.otsurv.model import PROTOTYPES

SHARES = (0.1, 0.5, 1.0)
SIZES = (100, 1_000, 10_000)  # patches of a bag; slides have thousands
BATCH = 48, 100  # bags of a batch, patches of each
# At a small share 1,000 scalings are not the end: what all are compared with.
converged = functools.partial(unrolled.plan, steps=20_000)


def make_cost(patches: int, seed: int) -> np.ndarray:
    """[patches, PROTOTYPES] distances to prototypes that are some of the patches."""
    random = np.random.default_rng(seed)
    points = random.normal(size=(patches, 16))
    points += 2 * random.normal(size=(6, 16))[random.integers(6, size=patches)]
    prototypes = points[:PROTOTYPES] + 0.5 * random.normal(size=(PROTOTYPES, 16))
    cost = np.linalg.norm(points[:, None] - prototypes[None], axis=2)
    return cost / cost.max()


def ours(cost: jax.Array, share: jax.Array) -> jax.Array:
    """[n, k] plan by `solve_partial`, at its own tolerance."""
    return layer.assign(cost, jnp.ones(cost.shape[0], bool), share).plan()


def with_gradient(plan_of, cost: jax.Array, weights: jax.Array, share: jax.Array):
    """Plan [n, k], and gradient of <weights, plan> in the cost."""

    def loss(cost):
        plan = plan_of(cost, share)
        return jnp.vdot(weights, plan), plan

    gradient, plan = jax.grad(loss, has_aux=True)(cost)
    return plan, gradient


def difference(found: Any, expected: Any) -> float:
    """Largest difference over the largest entry expected."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def agreement(patches: int = 100) -> list[dict[str, Any]]:
    """Differences from the converged loop in float64, for each share.

    Those of the published 1,000 scalings are there for comparison.
    """
    rows = []
    cost = make_cost(patches, 0)
    weights = np.random.default_rng(1).normal(size=cost.shape)

    @functools.partial(jax.jit, static_argnums=0)  # one compilation for all shares
    def compiled(plan_of, *arguments):
        return with_gradient(plan_of, *arguments)

    def run(plan_of, dtype, share):
        arguments = (jnp.asarray(x, dtype) for x in (cost, weights, share))
        return compiled(plan_of, *arguments)

    for share in SHARES:
        plan, gradient = run(converged, jnp.float64, share)
        cases = (
            ("ours", ours, jnp.float64),
            ("ours", ours, jnp.float32),
            ("published", unrolled.plan, jnp.float64),
            ("published", unrolled.plan, jnp.float32),
        )
        for name, plan_of, dtype in cases:
            found = run(plan_of, dtype, share)
            rows.append(
                {
                    "share": share,
                    "layer": name,
                    "dtype": jnp.dtype(dtype).name,
                    "plan": float(np.abs(np.asarray(found[0]) - plan).max()),
                    "plan_relative": difference(found[0], plan),
                    "gradient_relative": difference(found[1], gradient),
                }
            )
    return rows


def cost_of(plan_of, arguments: tuple, batched: bool) -> dict[str, Any]:
    """Seconds, seconds of compilation and bytes of a plan with its gradient."""
    function = functools.partial(with_gradient, plan_of)
    if batched:
        function = jax.vmap(function, in_axes=(0, 0, None))
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compilation = time.perf_counter() - start
    seconds, _, (plan, gradient) = record.timed(compiled, *arguments, repeats=7)
    return {
        "seconds": seconds,
        "compilation": compilation,
        "bytes": compiled.memory_analysis().temp_size_in_bytes,
        "plan": plan,
        "gradient": gradient,
    }


def costs(share: float = 0.5) -> list[dict[str, Any]]:
    """Time and memory in float32, for single bags and for a batch of bags."""
    cases = [(1, patches) for patches in SIZES] + [BATCH]
    rows = []
    for bags, patches in cases:
        host = np.stack([make_cost(patches, seed) for seed in range(bags)])
        steps = max(unrolled.steps_taken(cost, share) for cost in host)
        weights = np.random.default_rng(1).normal(size=host.shape)
        if bags == 1:
            host, weights = host[0], weights[0]
        arguments = tuple(jnp.asarray(x, jnp.float32) for x in (host, weights, share))
        layers = (
            ("published, 1,000 scalings", unrolled.plan, unrolled.STEPS),
            (
                "published, to its stopping rule",
                functools.partial(unrolled.plan, steps=steps),
                steps,
            ),
            ("ours", ours, None),
        )
        first = None
        for name, plan_of, made in layers:
            found = cost_of(plan_of, arguments, bags > 1)
            plan, gradient = found.pop("plan"), found.pop("gradient")
            first = first or (plan, gradient)
            rows.append(
                {
                    "bags": bags,
                    "patches": patches,
                    "layer": name,
                    "scalings": made,
                    **found,
                    "plan_relative": difference(plan, first[0]),
                    "gradient_relative": difference(gradient, first[1]),
                }
            )
            print(
                f"  {bags} x {patches:,} patches, {name}: "
                f"{1e3 * found['seconds']:.2f} ms, {found['bytes'] / 1e6:.2f} MB",
                flush=True,
            )
    return rows
