"""One-to-one transport of many points, in blocks."""

from jaxsns.bijection.solution import Bijection
from jaxsns.bijection.solve import solve_bijection

__all__ = ["Bijection", "solve_bijection"]
