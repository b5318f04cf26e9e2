"""Transport by plans of low rank."""

from jaxsns.low_rank.solution import LowRankSolution
from jaxsns.low_rank.solve import solve_low_rank

__all__ = ["LowRankSolution", "solve_low_rank"]
