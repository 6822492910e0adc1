"""Training: phases, losses, one loop."""
