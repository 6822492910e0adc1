"""What `params.yaml` may say, typed and checked: one module per part, so that a stage reads only its own."""
