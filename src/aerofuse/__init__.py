"""Aerofuse: fine-grained aircraft recognition with a fused ConvNeXt and Swin Transformer."""
