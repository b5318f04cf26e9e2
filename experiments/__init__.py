"""Experiments: each folder asks one question and is run with `python -m`.

They need the `experiments` extra (matplotlib) and are no part of the package.
"""
