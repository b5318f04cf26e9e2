"""Transport between Gaussians: the Bures-Wasserstein geometry of covariances.

See `jaxsns.gaussian.bures` for conventions, failures and sources.
"""

from jaxsns.gaussian.barycentre import GaussianBarycentre, barycentre
from jaxsns.gaussian.bures import (
    affine_map,
    bures,
    exponential,
    geodesic,
    logarithm,
    optimal_map,
    squared_distance,
)

__all__ = [
    "GaussianBarycentre",
    "affine_map",
    "barycentre",
    "bures",
    "exponential",
    "geodesic",
    "logarithm",
    "optimal_map",
    "squared_distance",
]
