"""What a cost is: the only floor that knows where costs come from."""

from jaxsns.geometry.dense import Dense
from jaxsns.geometry.grid import Grid
from jaxsns.geometry.point_cloud import PointCloud
from jaxsns.geometry.protocol import Geometry
from jaxsns.geometry.streamed import Streamed
from jaxsns.geometry.transposed import TransposedCost

__all__ = ["Dense", "TransposedCost", "Geometry", "Grid", "PointCloud", "Streamed"]
