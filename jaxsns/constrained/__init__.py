"""Transport with linear constraints on the plan."""

from jaxsns.constrained.solution import ConstrainedSolution
from jaxsns.constrained.solve import solve_constrained

__all__ = ["ConstrainedSolution", "solve_constrained"]
