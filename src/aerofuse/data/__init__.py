"""Photos and their labels: sources, splits, the prepared store, datasets. Knows nothing of models."""
