"""Low-rank transport beside OTT-JAX and POT."""
