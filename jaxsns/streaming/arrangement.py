"""A streamed problem with its points sorted into clusters."""

import dataclasses
from typing import NamedTuple

import jax

from jaxsns.geometry import Streamed, sharding
from jaxsns.problem.problem import Problem
from jaxsns.streaming import clusters
from jaxsns.streaming.clusters import ClusterLayout, ClusterOrder


class ClusteredProblem(NamedTuple):
    """A problem whose points are sorted into clusters, and how to undo it."""

    problem: Problem
    rows: ClusterOrder
    columns: ClusterOrder
    shapes: tuple[ClusterLayout, ClusterLayout]


def sort_into_clusters(problem: Problem) -> ClusteredProblem:
    """Sort both clouds; copies that fill the clusters carry no mass."""
    geometry = problem.geometry
    assert isinstance(geometry, Streamed)
    n, m = geometry.shape
    parts = 1 if geometry.mesh is None else geometry.mesh.size
    shapes = clusters.layout(n), clusters.layout(m, parts)
    rows = clusters.order(jax.lax.stop_gradient(geometry.x), shapes[0])
    columns = clusters.order(jax.lax.stop_gradient(geometry.y), shapes[1])
    geometry = dataclasses.replace(
        geometry, x=rows.sort(geometry.x), y=columns.sort(geometry.y)
    )
    rho_a = None if problem.rho_a is None else rows.sort(problem.rho_a)
    rho_b = None if problem.rho_b is None else columns.sort(problem.rho_b)
    a, b = rows.masses(problem.a), columns.masses(problem.b)
    b, rho_b = sharding.replicated(geometry.mesh, (b, rho_b))
    out = Problem(geometry, a, b, problem.epsilon, rho_a, rho_b)
    return ClusteredProblem(out, rows, columns, shapes)
