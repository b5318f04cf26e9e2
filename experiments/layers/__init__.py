"""Transport layers in plain JAX, flax and equinox models."""
