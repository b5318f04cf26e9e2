"""Differentiable entropic optimal transport for JAX.

`solve` is all that most people need. The pieces are public as well: `Problem` and
`make_problem`, the geometries, and the iterations in `jaxsns.solvers`.
"""

from jaxsns import gaussian, plot, ragged
from jaxsns.barycentres.debiased import DebiasedBarycentre, debiased_barycentre
from jaxsns.barycentres.fixed_support import (
    Barycentre,
    fixed_support_barycentre,
)
from jaxsns.barycentres.free_support import (
    FreeBarycentre,
    free_support_barycentre,
)
from jaxsns.bijection import Bijection, solve_bijection
from jaxsns.constrained import ConstrainedSolution, solve_constrained
from jaxsns.diagnostics.checkify import check
from jaxsns.diagnostics.diagnose import Diagnosis, Finding, diagnose
from jaxsns.exact import ExactSolution, solve_exact
from jaxsns.geometry import Dense, Grid, PointCloud, costs
from jaxsns.interop import ott
from jaxsns.interop.export import register_for_export
from jaxsns.layers.dustbin import dustbin_matching
from jaxsns.layers.projection import sinkhorn_projection
from jaxsns.layers.selecting import soft_quantile, soft_top_k
from jaxsns.layers.sorting import soft_rank, soft_sort
from jaxsns.layers.transport import (
    transport_attention,
    transport_loss,
    transport_pooling,
)
from jaxsns.losses.divergence import Divergence, sinkhorn_divergence
from jaxsns.losses.matching import (
    matching_cross_entropy,
    matching_cross_entropy_with_integer_labels,
)
from jaxsns.losses.monge import monge_gap
from jaxsns.losses.sliced import sliced_map, sliced_wasserstein
from jaxsns.low_rank import LowRankSolution, solve_low_rank
from jaxsns.partial import PartialSolution, solve_partial
from jaxsns.penalised import PenalisedSolution, penalties, solve_penalised
from jaxsns.plans.entries import (
    LargestEntries,
    argmax_matching,
    largest_entries,
    sample_pairs,
)
from jaxsns.plans.maps import c_transform, transport_map
from jaxsns.plans.rounding import round_to_feasible, round_to_permutation
from jaxsns.problem.inputs import make_problem
from jaxsns.problem.problem import Problem
from jaxsns.quadratic import (
    LowRank,
    QuadraticDivergence,
    QuadraticSolution,
    SpaceBarycentre,
    gromov_wasserstein_divergence,
    match_graphs,
    quadratic_map,
    solve_quadratic,
    space_barycentre,
)
from jaxsns.recording.counts import Counts
from jaxsns.recording.history import History, Step, StepKind
from jaxsns.solution import NotConvergedError, Solution
from jaxsns.solver import solve
from jaxsns.solvers.options import NewtonOptions, SinkhornOptions, SNSOptions
from jaxsns.solvers.sinkhorn.fixed_length import unrolled_sinkhorn
from jaxsns.sparse import SparseSolution, solve_sparse
from jaxsns.status import Status, describe

__version__ = "0.1.0"

__all__ = [
    "Barycentre",
    "Bijection",
    "ConstrainedSolution",
    "Counts",
    "DebiasedBarycentre",
    "Dense",
    "Diagnosis",
    "Divergence",
    "ExactSolution",
    "Finding",
    "FreeBarycentre",
    "Grid",
    "History",
    "LargestEntries",
    "LowRank",
    "LowRankSolution",
    "NewtonOptions",
    "NotConvergedError",
    "PartialSolution",
    "PenalisedSolution",
    "PointCloud",
    "Problem",
    "QuadraticDivergence",
    "QuadraticSolution",
    "SNSOptions",
    "SinkhornOptions",
    "Solution",
    "SpaceBarycentre",
    "SparseSolution",
    "Status",
    "Step",
    "StepKind",
    "argmax_matching",
    "c_transform",
    "check",
    "costs",
    "debiased_barycentre",
    "describe",
    "diagnose",
    "dustbin_matching",
    "fixed_support_barycentre",
    "free_support_barycentre",
    "gaussian",
    "gromov_wasserstein_divergence",
    "largest_entries",
    "make_problem",
    "match_graphs",
    "matching_cross_entropy",
    "matching_cross_entropy_with_integer_labels",
    "monge_gap",
    "ott",
    "penalties",
    "plot",
    "quadratic_map",
    "ragged",
    "register_for_export",
    "round_to_feasible",
    "round_to_permutation",
    "sample_pairs",
    "sinkhorn_divergence",
    "sinkhorn_projection",
    "sliced_map",
    "sliced_wasserstein",
    "soft_quantile",
    "soft_rank",
    "soft_sort",
    "soft_top_k",
    "solve",
    "solve_bijection",
    "solve_constrained",
    "solve_exact",
    "solve_low_rank",
    "solve_partial",
    "solve_penalised",
    "solve_quadratic",
    "solve_sparse",
    "space_barycentre",
    "transport_attention",
    "transport_loss",
    "transport_map",
    "transport_pooling",
    "unrolled_sinkhorn",
]


def __dir__() -> list[str]:
    """Public names only; packages of the inside are not among them."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
