"""What models read: labels, photos, the prepared store, datasets, augmentation. It imports nothing of models."""
