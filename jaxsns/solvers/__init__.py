"""Iterations as pure functions on states: `init`, `update`, `run` in each file."""

__all__: list[str] = []
