"""How well would a mixture of data sources train a model? Asked of small samples."""
