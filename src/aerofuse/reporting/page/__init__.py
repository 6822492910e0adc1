"""The report: one page that needs nothing from outside."""
