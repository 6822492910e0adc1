"""From a memory budget to a checkpointing plan: profiles, clocks, solver."""
