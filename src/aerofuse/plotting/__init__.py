"""Pictures of results, each in one look."""
