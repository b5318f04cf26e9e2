"""What all iterations share: the one loop, the counts, the tests that stop it."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsns.geometry.kernel import DenseKernel
from jaxsns.problem import dual, kernel_verdict
from jaxsns.problem.problem import Problem
from jaxsns.status import Status, code

NEGLIGIBLE = 0.04  # of the tolerance: what a kernel may miss, if below it
MOST = 0.4  # of the tolerance: what it may miss at most where it is the judge


class Counts(NamedTuple):
    """Work done, int32 scalars."""

    sweeps: jax.Array  # Sinkhorn sweeps: two products with the matrix each
    newton_steps: jax.Array  # Newton directions computed
    linear_steps: jax.Array  # products of the linear solver: two matrix products each
    sparse_steps: jax.Array  # the same with a sparse matrix
    passes: jax.Array  # exponentials of the whole matrix; a search of it counts as two

    def plus(self, **more: jax.Array | int) -> "Counts":
        """Add to some of the counts."""
        new = {k: (getattr(self, k) + v).astype(jnp.int32) for k, v in more.items()}
        return self._replace(**new)


def no_counts() -> Counts:
    """All counts at zero."""
    zero = jnp.asarray(0, jnp.int32)
    return Counts(zero, zero, zero, zero, zero)


class HasStatus(Protocol):
    """Any state that can go through the loop."""

    @property
    def status(self) -> jax.Array:
        """[] int32."""
        ...


S = TypeVar("S", bound=HasStatus)


def run(update: Callable[[S], S], state: S) -> S:
    """Apply `update` while the status is RUNNING. The only outer loop there is."""
    return jax.lax.while_loop(lambda s: s.status == code(Status.RUNNING), update, state)


def as_status(value: ArrayLike) -> jax.Array:
    """Status as it is carried: [] int32."""
    return jnp.asarray(value, jnp.int32)


def is_answer(status: jax.Array) -> jax.Array:
    """[] bool: ended as it was asked to, by its tolerance or its limit."""
    return (status == code(Status.CONVERGED)) | (status == code(Status.MAX_STEPS))


def verdict(
    error: jax.Array,
    tolerance: ArrayLike,
    step: jax.Array,
    max_steps: jax.Array | int,
    stalled: jax.Array,
) -> jax.Array:
    """[] status at a point whose exact error is known, tested in order of meaning.

    Converged counts before the limits: a solve that is right at its last permitted
    step has not failed.
    """
    status = jnp.where(step >= max_steps, code(Status.MAX_STEPS), code(Status.RUNNING))
    status = jnp.where(stalled, code(Status.STALLED), status)
    status = jnp.where(error <= tolerance, code(Status.CONVERGED), status)
    return as_status(jnp.where(jnp.isfinite(error), status, code(Status.NONFINITE)))


@jax.named_scope("judge")
def judge(
    problem: Problem,
    f: jax.Array,
    g: jax.Array,
    before: jax.Array,
    settled: jax.Array,
    last: ArrayLike,
    step: jax.Array,
    options: Any,
    absorbed: dual.KernelProblem | None = None,
    seen: jax.Array | None = None,
):
    """Verdict on potentials that steps on a kernel left, at the last epsilon.

    Asked for where the steps ended by themselves (`settled`), at the limit, or at a
    number that is not finite; a kernel that was only used up goes on, with the error
    of the verdict before. Returns f [n], g [m], error [], status [] and the passes
    it took.

    absorbed: what the steps were made on, and the error that was seen on it. That is
    the error, and no pass is made, where what a kernel may miss is far below the
    tolerance, or not most of it and both together are within it.
    """
    healthy = jnp.all(jnp.isfinite(f)) & jnp.all(
        jnp.where(problem.b > 0, g, 0) < jnp.inf
    )
    ended = settled | (step >= options.max_steps) | ~healthy
    asked = jnp.asarray(last) & ended
    tolerance = jnp.asarray(options.tolerance, problem.dtype)
    known, pass_wanted = (f, g, before), asked
    if absorbed is not None and isinstance(absorbed.kernel, DenseKernel):
        assert seen is not None
        seen = kernel_verdict.relative(problem, f, g, seen)
        missed = kernel_verdict.missed(problem, absorbed, f, g)
        negligible = missed <= NEGLIGIBLE * tolerance
        bound = jnp.where(negligible, seen, seen + missed)
        within = (bound <= tolerance) & (missed <= MOST * tolerance)
        sure = jnp.where(negligible, jnp.isfinite(seen), within)
        sure &= asked & healthy
        pass_wanted = asked & ~sure
        pick = lambda new, old: jnp.where(sure, new, old)
        known = jax.tree.map(pick, (*dual.final(problem, f, g), bound), known)
    f, g, error = jax.lax.cond(
        pass_wanted, lambda: dual.judged(problem, f, g), lambda: known
    )
    stalled = settled & (error > 0.5 * before)
    status = verdict(error, tolerance, step, options.max_steps, stalled)
    status = jnp.where(asked, status, code(Status.RUNNING))
    return f, g, error, as_status(status), jnp.where(pass_wanted, 1, 0)
