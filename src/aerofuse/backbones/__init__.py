"""Backbones: images in, one feature vector out. A backbone does not know how it is trained."""

from __future__ import annotations

from aerofuse.backbones.backbone import Backbone, create_backbone
from aerofuse.backbones.families import list_backbones

__all__ = ["Backbone", "create_backbone", "list_backbones"]
