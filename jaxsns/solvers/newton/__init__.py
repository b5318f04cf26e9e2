"""Newton's method on the semi-dual."""

__all__: list[str] = []
