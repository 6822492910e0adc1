"""What a trained model is worth: metrics, predictions per image, latency, and the comparison of models."""
