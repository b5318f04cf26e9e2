"""From some starts to the best end, with or without larger epsilons before it."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsns import control
from jaxsns.outer import iteration
from jaxsns.outer.iteration import Options, State
from jaxsns.quadratic import forms
from jaxsns.quadratic.terms import Terms
from jaxsns.recording.counts import Counts, no_counts


class Begin(NamedTuple):
    """Where an iteration starts, and the work that it took to get there."""

    carried: Any
    potentials: tuple[jax.Array, jax.Array]
    counts: Counts
    steps: jax.Array  # [] int32


def _annealed(
    terms: Terms, begin: Begin, epsilons, options: Options, valid, method
) -> Begin:
    """Solve for each of the epsilons [k], roughly, each from the last."""
    # Half as many digits, since only a start is wanted.
    options = options._replace(
        tolerance=jnp.sqrt(options.tolerance),
        inner_tolerance=jnp.sqrt(options.inner_tolerance),
    )

    def level(begin, epsilon):
        masses = dataclasses.replace(terms.masses, epsilon=epsilon)
        own = dataclasses.replace(terms, masses=masses)
        end = iteration.run(
            forms, own, begin.carried, begin.potentials, options, method, valid
        )
        counts = jax.tree.map(jnp.add, begin.counts, end.counts)
        steps = begin.steps + end.steps
        return Begin(end.next, (end.f, end.g), counts, steps), None

    return control.scan(level, begin, epsilons)[0]


@functools.partial(jax.jit, static_argnums=5)
def iterate(terms: Terms, starts, anneal, options: Options, valid, method) -> State:
    """Where the best of some starts ends; NaN if there is no answer."""
    rows, columns = forms.sizes(terms)
    dtype = terms.masses.dtype
    zero = jnp.zeros((rows,), dtype), jnp.zeros((columns,), dtype)

    def one(start):
        begin = Begin(start, zero, no_counts(), jnp.asarray(0, jnp.int32))
        if anneal is not None:
            begin = _annealed(terms, begin, anneal, options, valid, method)
        end = iteration.run(
            forms, terms, begin.carried, begin.potentials, options, method, valid
        )
        return end._replace(
            plan=None, next=None, trial=None, window=None,
            steps=end.steps + begin.steps,
            counts=jax.tree.map(jnp.add, end.counts, begin.counts),
        )  # fmt: skip

    # One after another: side by side all would wait for the slowest.
    ends = jax.lax.map(one, starts)
    best = jnp.argmin(jnp.where(jnp.isfinite(ends.value), ends.value, jnp.inf))
    end = jax.tree.map(lambda v: v[best], ends)
    return iteration.answered(end)
