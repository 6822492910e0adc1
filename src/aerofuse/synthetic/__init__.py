"""Aircraft drawn from geometry, with exact labels: the built-in data (docs/built-in-data.md)."""
