"""Checkpointing policies and plans, and running chains of units under them."""
