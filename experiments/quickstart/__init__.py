"""The first thing to run: two digits, a moving cloud and a small model, in minutes."""
