"""Transport between Gaussians: the Bures-Wasserstein geometry of covariances.

All but `barycentre` and the functions of mixtures are closed forms. These take one
matrix at a time; use `jax.vmap` for batches. Only symmetric parts count, so gradients
with respect to covariances are symmetric. Derivatives have any order, in both modes,
also at equal matrices, equal eigenvalues and tiny ones: no eigenvector is
differentiated and no eigenvalue subtracted. Eigenvalues below d times the roundoff of
the largest count as zero; where a derivative would be infinite there, it is zero.

`metric` is a symmetric positive definite M [d, d], None for the identity: lengths of
vectors are (x^T M^-1 x)^1/2, and every formula is applied to M^-1/2 A M^-1/2 (the
generalised Bures-Wasserstein metric).

Bad shapes and types raise. Covariances must be finite, symmetric and positive
semidefinite up to 64 d roundoffs: concrete ones that are not raise ValueError, traced
ones make the result NaN. The check of a traced matrix is one
eigendecomposition.

Sources: Bhatia, Jain and Lim, Expositiones Mathematicae 37 (2019); Han et al.,
"Learning with symmetric positive definite matrices via generalized Bures-Wasserstein
geometry" (2021); the formulas as used by arXiv 2504.00660.
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
