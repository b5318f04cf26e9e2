"""Transport with a convex penalty on the plan, solved by linear problems."""

from jaxsns.penalised.solution import PenalisedSolution
from jaxsns.penalised.solve import solve_penalised

__all__ = ["PenalisedSolution", "solve_penalised"]
