"""What a cost is: the only floor that knows where costs come from."""

from typing import TypeAlias

from jax.typing import ArrayLike

from jaxsns.geometry.dense import Dense
from jaxsns.geometry.grid import Grid
from jaxsns.geometry.point_cloud import PointCloud
from jaxsns.geometry.protocol import Geometry
from jaxsns.geometry.streamed import Streamed
from jaxsns.geometry.transposed import TransposedCost

__all__ = [
    "CostLike",
    "Dense",
    "TransposedCost",
    "Geometry",
    "Grid",
    "PointCloud",
    "Streamed",
]

CostLike: TypeAlias = ArrayLike | Dense | PointCloud | Grid
"""What may be given as a cost: a matrix [n, m], or one of these geometries."""
