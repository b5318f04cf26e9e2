"""Other libraries: OTT-JAX, and programs saved by `jax.export`."""

__all__: list[str] = []
