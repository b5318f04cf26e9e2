"""Transport inside a model: attention, pooling, sorting, selecting."""

__all__: list[str] = []
