"""Solves whose costs are never stored."""

__all__: list[str] = []
