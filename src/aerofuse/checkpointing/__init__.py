"""How the units of a chain may be treated in training: what is kept, what is computed again, and doing it."""
