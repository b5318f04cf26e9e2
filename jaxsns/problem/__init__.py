"""The problem as data: inputs, masses, the dual."""

__all__: list[str] = []
