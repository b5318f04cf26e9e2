"""Measures every figure the project promises; `python -m experiments.figures`."""
