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
from jaxsns.gaussian.mixtures import (
    Mixture,
    MixtureBarycentre,
    MixtureTransport,
    mixture_barycentre,
    mixture_transport,
)

__all__ = [
    "GaussianBarycentre",
    "Mixture",
    "MixtureBarycentre",
    "MixtureTransport",
    "affine_map",
    "barycentre",
    "bures",
    "exponential",
    "geodesic",
    "logarithm",
    "mixture_barycentre",
    "mixture_transport",
    "optimal_map",
    "squared_distance",
]
