"""Models: backbones, fusion and heads put together, and the files that hold them."""
