"""MLflow, and nothing else knows of it: runs of training stages, and what is kept while its server is away."""
