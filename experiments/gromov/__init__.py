"""Gromov-Wasserstein beside POT and OTT-JAX."""
