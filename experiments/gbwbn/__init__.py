"""Batch normalisation of covariances, Bures-Wasserstein against log-Euclidean."""
