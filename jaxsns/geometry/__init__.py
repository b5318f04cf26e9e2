"""What a cost is: the only floor that knows where costs come from."""

from jaxsns.geometry.dense import Dense as Dense
from jaxsns.geometry.point_cloud import PointCloud as PointCloud

Geometry = Dense | PointCloud
