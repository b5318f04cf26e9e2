"""Transport without entropy: a plan, prices, and the gap between them as a proof."""

from jaxsns.exact.solution import ExactSolution
from jaxsns.exact.solve import solve_exact

__all__ = ["ExactSolution", "solve_exact"]
