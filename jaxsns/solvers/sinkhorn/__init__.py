"""Sinkhorn's iteration in its variants."""

__all__: list[str] = []
