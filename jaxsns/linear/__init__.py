"""Linear solves that know nothing of transport."""
