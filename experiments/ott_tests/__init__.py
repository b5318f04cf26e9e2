"""OTT-JAX's own tests, run on our solver and on OTT's."""
