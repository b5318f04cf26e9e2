"""The door through which covariances come in, and the change to a metric and back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsns.gaussian import matrix_sqrt
from jaxsns.gaussian.matrix_sqrt import symmetric_part
from jaxsns.numerics import matmul
from jaxsns.problem.inputs import as_float

ANY, SEMIDEFINITE, DEFINITE = (
    "symmetric",
    "symmetric positive semidefinite",
    "symmetric positive definite",
)


_SHAPES = {
    "mean_a": "d",
    "cov_a": "d d",
    "mean_b": "d",
    "cov_b": "d d",
    "base": "d d",
    "cov": "d d",
    "tangent": "d d",
    "covs": "K d d",
    "weights": "K",
    "t": "",
    "metric": "d d",
}
_OPTIONAL = ("metric", "weights")
_KINDS = {"tangent": ANY, "metric": DEFINITE}


def arrays(values: dict[str, Any]) -> list[Any]:
    """Bring arrays to one dtype; letters stand for sizes that must agree, > 0.

    A number of Python takes the dtype of the others.
    """
    present = {n: v for n, v in values.items() if v is not None or n not in _OPTIONAL}
    given = {n: as_float(n, v) for n, v in present.items()}
    own = [x.dtype for n, x in given.items() if not isinstance(values[n], int | float)]
    dtype = np.result_type(*own)
    sizes: dict[str, int] = {}
    for name, x in given.items():
        letters = _SHAPES[name].split()
        fits = len(letters) == x.ndim and 0 not in x.shape
        for letter, size in zip(letters, x.shape, strict=False):
            fits &= sizes.setdefault(letter, size) == size
        if not fits:
            known = [str(sizes.get(letter, letter)) for letter in letters]
            raise ValueError(
                f"{name} must have shape [{', '.join(letters)}] = "
                f"[{', '.join(known)}], not empty; got {x.shape}"
            )
    return [given[n].astype(dtype) if n in given else None for n in values]


def admit(name: str, a: jax.Array | None, kind: str = SEMIDEFINITE) -> Any:
    """Symmetric part of a [..., d, d]; if it is not `kind`, raise, or NaN if traced."""
    if a is None:
        return None
    traced = isinstance(a, Tracer)
    xp = jnp if traced else np
    x: Any = jax.lax.stop_gradient(a) if traced else np.asarray(a)
    finite = xp.all(xp.isfinite(x), axis=(-2, -1), keepdims=True)
    x = xp.where(finite, x, xp.zeros_like(x))
    slack = matrix_sqrt.resolution(a)
    size = xp.max(xp.abs(x), axis=(-2, -1))
    symmetric = xp.max(xp.abs(x - x.mT), axis=(-2, -1)) <= 64 * slack * size
    good = finite[..., 0, 0] & symmetric
    lowest = size
    if kind != ANY:
        x = symmetric_part(x)
        values = matrix_sqrt.spectrum(x)[0] if traced else np.linalg.eigvalsh(x)
        lowest, size = values[..., 0], xp.max(xp.abs(values), axis=-1)
        definite = lowest > slack * size
        good &= definite if kind == DEFINITE else lowest >= -64 * slack * size
    if traced:
        poison = xp.where(good, 1, xp.nan).astype(a.dtype)
        return symmetric_part(a) * poison[..., None, None]
    if not np.all(good):
        why = "a NaN or an infinity" if not np.all(finite) else "an asymmetric matrix"
        if np.all(finite) and np.all(symmetric):
            why = f"the eigenvalue {np.min(lowest):.3g}"
        raise ValueError(f"{name} must be finite and {kind}; got {why}")
    return symmetric_part(a)


def check_finite(name: str, a: jax.Array | None) -> None:
    """Raise ValueError if a concrete array has a NaN or an infinity."""
    if a is not None and not isinstance(a, Tracer) and not np.all(np.isfinite(a)):
        raise ValueError(f"{name} must be finite; got {np.asarray(a)}")


def enter(**given: Any) -> list[Any]:
    """Check all arguments and bring them to one dtype."""
    values = arrays(given)
    admitted = []
    for name, x in zip(given, values, strict=True):
        if x is None or _SHAPES[name].endswith("d d"):
            x = admit(name, x, _KINDS.get(name, SEMIDEFINITE))
        else:
            check_finite(name, x)
        admitted.append(x)
    return admitted


def whiten(metric: jax.Array | None, *matrices: jax.Array):
    """Factor L of M = L L^T, and L^-1 A L^-T of each matrix; (None, same) for None.

    Lengths in the metric depend on M alone, so the triangular L serves as well as the
    root M^1/2 would, and every result that is taken back with the same L is the same.
    """
    if metric is None:
        return None, *matrices
    factor = jax.lax.linalg.cholesky(metric, symmetrize_input=False)
    return factor, *[
        symmetric_part(divide(factor, divide(factor, a).T)) for a in matrices
    ]


def divide(factor: jax.Array | None, x: jax.Array) -> jax.Array:
    """[d, k] L^-1 x; x if there is no metric."""
    if factor is None:
        return x
    return jax.scipy.linalg.solve_triangular(factor, x, lower=True)


def colour(factor: jax.Array | None, a: jax.Array) -> jax.Array:
    """[d, d] L A L^T, the way back from `whiten`."""
    return a if factor is None else matmul(matmul(factor, a), factor.T)
