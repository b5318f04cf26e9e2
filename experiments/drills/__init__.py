"""Failure drills: random problems of all scales, and a judge that owes nothing."""
