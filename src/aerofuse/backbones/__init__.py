"""Backbones: image in, one feature vector out. A backbone does not know how it is trained."""
