"""Quadratic transport: (fused) Gromov-Wasserstein problems, solved by linear ones."""

from jaxsns.quadratic.barycentre import SpaceBarycentre, space_barycentre
from jaxsns.quadratic.divergence import (
    QuadraticDivergence,
    gromov_wasserstein_divergence,
)
from jaxsns.quadratic.solution import QuadraticSolution
from jaxsns.quadratic.solve import solve_quadratic
from jaxsns.quadratic.spaces import LowRank
from jaxsns.quadratic.uses import match_graphs, quadratic_map

__all__ = [
    "LowRank",
    "QuadraticDivergence",
    "QuadraticSolution",
    "SpaceBarycentre",
    "gromov_wasserstein_divergence",
    "match_graphs",
    "quadratic_map",
    "solve_quadratic",
    "space_barycentre",
]
