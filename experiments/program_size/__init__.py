"""How large the compiled programs of the public functions are."""
