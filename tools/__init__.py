"""What developers run beside the pipeline: benchmarks, studies, the tables of the README, pretraining."""
