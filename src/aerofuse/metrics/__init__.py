"""How well one model answers: metrics, calibration, latency, its predictions."""
