"""Problems that are solved by a sequence of linear ones: linearise, solve, repeat."""

__all__ = []
