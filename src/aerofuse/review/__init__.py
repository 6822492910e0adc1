"""Labels that look wrong, and photos that are worth labelling next: what `aerofuse review` does."""
