"""The pages that the pipeline writes: report, tables, model card."""
