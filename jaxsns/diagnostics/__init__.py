"""What is wrong with a problem or a solution, in words or as an error."""

__all__: list[str] = []
