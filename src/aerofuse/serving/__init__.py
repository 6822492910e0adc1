"""A model package behind MLflow's scoring server: photos in, predictions out. On top of inference, which knows none."""
