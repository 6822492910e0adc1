"""Several models side by side: gates, gains, times."""
