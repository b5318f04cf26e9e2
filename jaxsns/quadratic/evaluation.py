"""What potentials of a linear problem show about the quadratic one."""

from typing import Any, NamedTuple

import jax


class Evaluation(NamedTuple):
    """The same for both forms of the problem."""

    next: Any  # what the plan would carry
    plan: Any  # the plan, for `forms.change`
    value: jax.Array  # [] objective
    size: jax.Array  # [] of its terms, to know what is rounding
