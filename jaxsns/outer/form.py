"""What the outer iteration asks of a problem, and what it gets."""

from typing import Any, NamedTuple, Protocol

import jax

from jaxsns.problem.problem import Problem


class Evaluation(NamedTuple):
    """What potentials of a linear problem show about the outer one."""

    next: Any  # what the plan would carry
    plan: Any  # the plan, for `Form.change`
    value: jax.Array  # [] objective
    size: jax.Array  # [] of its terms, to know what is rounding


class Terms(Protocol):
    """All that the solution depends on, as one pytree."""

    @property
    def masses(self) -> Problem:
        """Masses, epsilon and penalties of the linear problems."""
        ...


class Form(Protocol):
    """Functions of a problem; a module has them.

    What is carried from one linear problem to the next is a pytree of arrays of which
    sums and multiples are of use, such as a linearised cost.
    """

    def problem(self, terms: Any, carried: Any, /) -> Problem:
        """Return the linear problem of what is carried."""
        ...

    def evaluate(
        self, terms: Any, carried: Any, f: jax.Array, g: jax.Array, /
    ) -> Evaluation:
        """What potentials of that linear problem show."""
        ...

    def change(self, terms: Any, old: Any, new: Any, /) -> jax.Array:
        """[] L1 difference of two plans, relative to the mass."""
        ...

    def no_plan(self, terms: Any, carried: Any, /) -> Any:
        """Stand-in for a plan before there is one."""
        ...

    def weights(self, terms: Any, plan: Any, /) -> jax.Array:
        """[size of what is carried] weights of the norm of extrapolated steps."""
        ...

    def sensible(self, terms: Any, carried: Any, plain: Any, /) -> Any:
        """Extrapolated, with what of a plain step must be kept."""
        ...
