"""Differentiable entropic optimal transport for JAX.

`solve` is all that most people need. The pieces are public as well: `Problem` and
`make_problem`, the geometries, and the iterations in `jaxsns.solvers`.
"""

from jaxsns import gaussian as gaussian
from jaxsns import plot as plot
from jaxsns import ragged as ragged
from jaxsns.barycentre import Barycentre as Barycentre
from jaxsns.barycentre import fixed_support_barycentre as fixed_support_barycentre
from jaxsns.diagnosis import Diagnosis as Diagnosis
from jaxsns.diagnosis import Finding as Finding
from jaxsns.diagnosis import diagnose as diagnose
from jaxsns.divergence import Divergence as Divergence
from jaxsns.divergence import sinkhorn_divergence as sinkhorn_divergence
from jaxsns.exporting import register_for_export as register_for_export
from jaxsns.free_barycentre import FreeBarycentre as FreeBarycentre
from jaxsns.free_barycentre import free_support_barycentre as free_support_barycentre
from jaxsns.geometry import Dense as Dense
from jaxsns.geometry import Grid as Grid
from jaxsns.geometry import PointCloud as PointCloud
from jaxsns.geometry import costs as costs
from jaxsns.history import History as History
from jaxsns.history import Step as Step
from jaxsns.history import StepKind as StepKind
from jaxsns.inputs import make_problem as make_problem
from jaxsns.layers import transport_attention as transport_attention
from jaxsns.layers import transport_loss as transport_loss
from jaxsns.layers import transport_pooling as transport_pooling
from jaxsns.maps import c_transform as c_transform
from jaxsns.maps import transport_map as transport_map
from jaxsns.matching import matching_cross_entropy as matching_cross_entropy
from jaxsns.matching import (
    matching_cross_entropy_with_integer_labels as matching_cross_entropy_with_integer_labels,  # noqa: E501
)
from jaxsns.partial import PartialSolution as PartialSolution
from jaxsns.partial import solve_partial as solve_partial
from jaxsns.plan_access import LargestEntries as LargestEntries
from jaxsns.plan_access import argmax_matching as argmax_matching
from jaxsns.plan_access import largest_entries as largest_entries
from jaxsns.plan_access import sample_pairs as sample_pairs
from jaxsns.problem import Problem as Problem
from jaxsns.raising import check as check
from jaxsns.rounding import round_to_feasible as round_to_feasible
from jaxsns.rounding import round_to_permutation as round_to_permutation
from jaxsns.selecting import soft_quantile as soft_quantile
from jaxsns.selecting import soft_top_k as soft_top_k
from jaxsns.solution import NotConvergedError as NotConvergedError
from jaxsns.solution import Solution as Solution
from jaxsns.solver import solve as solve
from jaxsns.solvers.iteration import Counts as Counts
from jaxsns.solvers.newton import NewtonOptions as NewtonOptions
from jaxsns.solvers.sinkhorn import SinkhornOptions as SinkhornOptions
from jaxsns.solvers.sns import SNSOptions as SNSOptions
from jaxsns.solvers.unrolled import unrolled_sinkhorn as unrolled_sinkhorn
from jaxsns.sorting import soft_rank as soft_rank
from jaxsns.sorting import soft_sort as soft_sort
from jaxsns.status import Status as Status
from jaxsns.status import describe as describe

__version__ = "0.1.0"
