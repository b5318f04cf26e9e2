"""Batches under `vmap`."""

__all__: list[str] = []
