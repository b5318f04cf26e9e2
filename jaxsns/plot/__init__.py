"""Pictures of plans, marginals, potentials, errors and batches, with matplotlib.

matplotlib is the extra `plot` and is imported when something is drawn. Every function
draws on the matplotlib axes `ax`, or on new ones if None, and returns them; figures
are shown and saved by the caller. All work outside `jit` only.
"""

from jaxsns.plot.curves import batch, marginals, potentials
from jaxsns.plot.plans import coupling, lines, plan
from jaxsns.plot.steps import convergence

__all__ = [
    "batch",
    "convergence",
    "coupling",
    "lines",
    "marginals",
    "plan",
    "potentials",
]
