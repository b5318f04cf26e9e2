"""Quadratically regularised transport beside POT and RegOT."""
