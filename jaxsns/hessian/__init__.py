"""The matrix of a Newton step, which is also the matrix of the derivative."""

__all__: list[str] = []
