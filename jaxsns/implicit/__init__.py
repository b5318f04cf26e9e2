"""Derivatives of converged potentials, whatever algorithm found them."""

__all__: list[str] = []
