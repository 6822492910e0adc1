"""Grids and searches over parameters: trials of Optuna, each of them an experiment of DVC."""
