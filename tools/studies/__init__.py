"""Questions that take several DVC experiments to answer."""
