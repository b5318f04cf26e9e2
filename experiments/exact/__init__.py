"""Transport without entropy beside POT, SciPy and optax."""
