"""Clustering of long-tailed data with pseudo-labels from partial transport."""
