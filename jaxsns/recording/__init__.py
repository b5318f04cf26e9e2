"""What the steps of a solve leave on record."""

__all__: list[str] = []
