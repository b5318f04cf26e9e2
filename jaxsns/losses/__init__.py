"""Losses: the Sinkhorn divergence, and cross-entropies of a plan."""

__all__: list[str] = []
