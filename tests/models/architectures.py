"""Architectures that tests build."""

from __future__ import annotations

from collections.abc import Sequence

from aerofuse.models.architecture import Architecture


def baseline_architecture(
    cnn: str, tasks: Sequence[str], head_dropout: float, drop_path: float, image_size_px: int
) -> Architecture:
    """A baseline with the heads named by `tasks`."""
    return Architecture(cnn, None, None, tuple(tasks), head_dropout, drop_path, image_size_px)
