"""What a cost is: the only floor that knows where costs come from."""

from jaxsns.geometry.dense import Dense as Dense
from jaxsns.geometry.grid import Grid as Grid
from jaxsns.geometry.grid_kernel import GridKernel
from jaxsns.geometry.kernel import DenseKernel
from jaxsns.geometry.point_cloud import PointCloud as PointCloud

Geometry = Dense | PointCloud | Grid
Kernel = DenseKernel | GridKernel
