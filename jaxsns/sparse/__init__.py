"""Sparse plans: transport with a quadratic penalty in place of the entropy."""

from jaxsns.sparse.solution import SparseSolution
from jaxsns.sparse.solve import solve_sparse

__all__ = ["SparseSolution", "solve_sparse"]
