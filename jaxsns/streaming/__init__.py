"""Clusters of points, and models of a plan that is never stored."""

__all__: list[str] = []
