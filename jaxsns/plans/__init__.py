"""What follows from a plan: its entries, maps of new points, rounding."""

__all__: list[str] = []
