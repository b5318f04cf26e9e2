"""What a cost is: the only floor that knows where costs come from."""

from jaxsns.geometry.dense import Dense as Dense
from jaxsns.geometry.flipped import Flipped as Flipped
from jaxsns.geometry.grid import Grid as Grid
from jaxsns.geometry.point_cloud import PointCloud as PointCloud
from jaxsns.geometry.streamed import Streamed as Streamed

Geometry = Dense | PointCloud | Streamed | Flipped | Grid
