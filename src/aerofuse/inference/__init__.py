"""Using a trained model: its package, predictions, the reasons for them, export. No pipeline, no tracking."""
