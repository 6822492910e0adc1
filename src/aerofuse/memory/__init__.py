"""Counting the bytes that are alive in a training step, by kind."""
