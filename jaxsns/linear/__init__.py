"""Linear solves that know nothing of transport."""

__all__: list[str] = []
